"""Instructions and captions out of their tables -> a folder of examples that training reads.

Rows stream through the driver one after the other. Groups that are held out go to a folder of their
own, of which training sees nothing.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from udfs.inputs import captions as texts
from udfs.inputs import images
from udfs.training.examples import INSTRUCTIONS, PAIRS
from udfs.training.run import HELD_OUT

from ..tables import delta
from .instruction_tables import Sources, Told

DATA = "data.json"
"""What was read and left out, for the model card; written last, so that the folder is whole."""

PIECE = 256  # rows written at a time
_PAIRS = pa.schema(
    [("uid", pa.string()), ("image", pa.binary()), ("caption", pa.string()), ("group", pa.string())]
)
_INSTRUCTIONS = pa.schema(
    [
        ("uid", pa.string()),
        ("caption", pa.string()),
        ("metric", pa.string()),
        ("score", pa.float64()),
        ("reason", pa.string()),
    ]
)


def key_of(spark: SparkSession, sources: Sources) -> str | None:
    """What the examples are made of, or None where a table has no versions to tell by."""
    versions = {}
    for ref in (sources.instructions, sources.captions, sources.pairs):
        if ref is not None:
            if not delta.exists(spark, ref):
                return None
            versions[ref] = delta.version(spark, ref)
    made_of = json.dumps([asdict(sources), versions], sort_keys=True)
    return hashlib.sha256(made_of.encode()).hexdigest()


def write(told: Told, folder: Path, data: dict[str, Any]) -> dict[str, Any]:
    """Write the folder of examples, whole or not at all; return what it holds.

    An image that cannot be decoded is left out with all that is said of it.
    """
    scratch = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(scratch, ignore_errors=True)
    counts = told.counts()
    bad: set[str] = set()
    scored = told.instructions.where("why is null")
    for held, place in ((False, scratch), (True, scratch / HELD_OUT)):
        place.mkdir(parents=True)
        mine = scored.where("held" if held else "not held")
        rows = told.images.where("held" if held else "not held")
        # Images without captions only where a score needs them.
        scores = mine.select("uid").distinct().withColumn("scored", F.lit(True))
        rows = rows.join(scores, on="uid", how="left")
        needed = "scored and (why is null or why = 'no caption')"
        rows = rows.where(f"(matches and why is null) or ({needed})")
        _write_table(place / PAIRS, _PAIRS, _pairs(rows, bad))
        _write_table(place / INSTRUCTIONS, _INSTRUCTIONS, _rows(mine, bad))
    if bad:
        counts["left_out"]["captions"]["image that cannot be decoded"] = len(bad)
    data = data | counts
    (scratch / DATA).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    scratch.rename(folder)
    return data


def _pairs(rows: DataFrame, bad: set[str]) -> Iterator[dict[str, Any]]:
    """Rows of PAIRS; an image is not written twice for a uid. Notes uids whose image is bad."""
    written: dict[str, set[bytes]] = {}
    for row in rows.select("uid", "image", "captions", "group").toLocalIterator():
        uid, image = row["uid"], bytes(row["image"])
        known, digest = written.setdefault(uid, set()), hashlib.sha256(image).digest()
        new: bytes | None = None
        if digest not in known:
            try:
                images.decode(image)
            except images.ImageError:
                bad.add(uid)
                continue
            known.add(digest)
            new = image
        captions: list[str | None] = [texts.clean(caption) for caption in row["captions"]]
        for caption in captions or [None]:
            if caption or new:
                yield {"uid": uid, "image": new, "caption": caption, "group": row["group"]}
            new = None
    bad -= {uid for uid, known in written.items() if known}  # another image of it is good


def _rows(scored: DataFrame, bad: set[str]) -> Iterator[dict[str, Any]]:
    columns = [
        F.col(f.name).cast("binary") if f.name in ("caption", "reason") else F.col(f.name)
        for f in _INSTRUCTIONS
    ]
    for row in scored.select(*columns).toLocalIterator():
        if row["uid"] not in bad:
            found = row.asDict()
            found["caption"] = texts.clean(found["caption"])
            found["reason"] = " ".join(texts.clean(found["reason"]).split()) or None
            yield found


def _write_table(path: Path, schema: pa.Schema, rows: Iterator[dict[str, Any]]) -> None:
    with pq.ParquetWriter(path, schema) as writer:
        piece: list[dict[str, Any]] = []
        for row in rows:
            piece.append(row)
            if len(piece) == PIECE:
                writer.write_table(pa.Table.from_pylist(piece, schema))
                piece = []
        if piece:
            writer.write_table(pa.Table.from_pylist(piece, schema))


def known(folder: Path) -> dict[str, Any]:
    """What `write` said of a whole folder of examples; empty where there is none."""
    try:
        data: dict[str, Any] = json.loads((folder / DATA).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return data
