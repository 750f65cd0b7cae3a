"""Numbered shards of kept pairs: which sample goes where, and the folder that they make.

Samples are shuffled once and for all: their order is that of a hash of uid and repetition, so that
neither partitioning nor a second run changes it. Executors write the shards; `manifest.json` lists
them and is `complete` when all are there. A run that was killed goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from udfs.core.atomic_files import replacing
from udfs.outputs import parquet_shards, tar_shards
from udfs.outputs.shards import Layout, Shard, Write, write_shards

from ..core.errors import UsageError
from ..core.progress import Progress
from ..core.session import session_settings
from ..tables.delta import quoted
from ..tables.filtered_pairs import BROADCAST_ROWS
from ..tables.pairs import PAIRS_KEYS
from .selected_rows import own_columns

BUCKETS_BITS = 12
TELL_SECONDS = 20

MANIFEST = "manifest.json"
_FORMAT = 1  # of what is in a shard: a new number makes a new plan
_RECORD = (
    "shard long, file string, rows long, bytes long, sha256 string, left_out long, "
    "left_out_such_as array<string>"
)
_WITH_IMAGES = {
    "spark.sql.execution.arrow.maxRecordsPerBatch": "256",
    "spark.sql.execution.arrow.maxBytesPerBatch": "32m",
}


@dataclass(frozen=True)
class Kind:
    """A kind of shard: who writes it, who recognizes it, and the files that are its own."""

    write: Write
    finished: Callable[[Layout, int], Shard | None]
    own: re.Pattern[str]
    folder: str = ""


KINDS = {
    "webdataset": Kind(tar_shards.write_tar, tar_shards.finished_tar, tar_shards.OWN),
    "parquet": Kind(
        parquet_shards.write_parquet,
        parquet_shards.finished_parquet,
        parquet_shards.OWN,
        "data",
    ),
}


def plan_of(parts: dict[str, Any]) -> str:
    """A name for what is exported: the same for the same tables, versions and settings."""
    text = json.dumps(parts | {"format": _FORMAT}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def check_place(folder: Path) -> None:
    """Raise UsageError unless `folder` is new, empty, or the place of an earlier export."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output {folder} is a file: name a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise UsageError(f"--output {folder} holds something else (no {MANIFEST}): name another")


def placed(kept: DataFrame, shard_rows: int) -> tuple[DataFrame, int]:
    """The samples of `kept_rows` with `_shard`, `_index` and `repetition` (0, 1 ...); their number.

    Exact without a sort in one place: a sample's number is that of the samples in the hash buckets
    before its own, and its row number there.
    """
    order = F.xxhash64("uid", "repetition")
    samples = kept.withColumn(
        "repetition", F.explode(F.sequence(F.lit(0), F.col("repetitions") - 1))
    )
    samples = samples.drop("repetitions").withColumns(
        {"_order": order, "_bucket": F.shiftrightunsigned(order, 64 - BUCKETS_BITS).cast("int")}
    )
    counts = sorted(tuple(row) for row in samples.groupBy("_bucket").count().collect())
    total = 0
    starts = []
    for bucket, rows in counts:
        starts.append((bucket, total))
        total += rows
    before = kept.sparkSession.createDataFrame(starts, "_bucket int, _before long")
    inside = Window.partitionBy("_bucket").orderBy("_order", *PAIRS_KEYS, "repetition")
    number = F.col("_before") + F.row_number().over(inside) - 1
    numbered = samples.join(F.broadcast(before), "_bucket", "inner").withColumn("_number", number)
    places = {
        "_shard": F.floor(F.col("_number") / shard_rows),
        "_index": F.col("_number") % shard_rows,
    }
    return numbered.withColumns(places).drop("_order", "_bucket", "_before", "_number"), total


def rows_of(samples: DataFrame, pairs: DataFrame, total: int, image: str) -> DataFrame:
    """What the writers take: a row a sample, with its image (or path) and all its fields."""
    signals = [n for n in samples.columns if n not in (*PAIRS_KEYS, "_shard", "_index")]
    own = own_columns(pairs, signals, {"image", "image_path", "caption", "read_error"})
    # few are sent to every executor, so that images are shuffled once and not twice
    narrow = F.broadcast(samples) if total <= BROADCAST_ROWS else samples
    content: list[Column] = [
        F.col(image).alias("_image"),
        F.col("caption").cast("binary").alias("_caption"),
        *(F.col(quoted(name)) for name in own),
    ]
    found = pairs.select(*PAIRS_KEYS, *content).join(narrow, on=list(PAIRS_KEYS), how="inner")
    return found.select(
        "_shard", "_index", "_image", "_caption", "uid", *map(quoted, signals + own)
    )


def write(rows: DataFrame, total: int, layout: Layout, kind: Kind) -> list[Shard]:
    """Write the shards of `rows_of` that are not there yet; returns all of them in their order."""
    spark = rows.sparkSession
    done = [shard for n in range(layout.shards) if (shard := kind.finished(layout, n))]
    missing = set(range(layout.shards)) - {shard.shard for shard in done}
    progress = Progress(layout.shards, "shards")
    if done:
        progress.add(len(done))
    if missing:
        there = spark.createDataFrame([(shard.shard,) for shard in done], "_shard long")
        rows = rows.join(F.broadcast(there), "_shard", "left_anti")
        first = [name for name in rows.columns if name not in ("_image", "_caption")]
        with session_settings(spark, _WITH_IMAGES), _watched(progress, layout, kind, missing):
            ordered = rows.repartition(min(1000, len(missing)), "_shard")
            ordered = ordered.sortWithinPartitions(*map(quoted, first))
            job = partial(write_shards, layout=layout, write=kind.write)
            for row in ordered.mapInArrow(job, _RECORD).collect():
                values = row.asDict()
                values["left_out_such_as"] = tuple(values["left_out_such_as"])
                done.append(Shard(**values))
        progress.add(layout.shards - progress.done)
    done.sort(key=lambda shard: shard.shard)
    _check_all_there(done, layout)
    accounted = sum(shard.rows + shard.left_out for shard in done)
    if accounted != total:
        raise RuntimeError(f"{accounted:,} samples are accounted for, of {total:,}")
    return done


def manifest(folder: Path, about: dict[str, Any], shards: Iterable[Shard], complete: bool) -> None:
    """Write `manifest.json`."""
    listed = [
        {"file": s.file, "rows": s.rows, "bytes": s.bytes, "sha256": s.sha256} for s in shards
    ]
    text = json.dumps({"complete": complete, **about, "shards": listed}, indent=1)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / MANIFEST) as part:
        part.write_text(text + "\n", encoding="utf-8")


def remove_others(layout: Layout, kind: Kind, shards: Iterable[Shard]) -> int:
    """Remove what earlier exports have left in the folder; returns how many files."""
    folder = Path(layout.folder, kind.folder)
    stems = {Path(shard.file).name.partition(".")[0] for shard in shards}
    removed = 0
    for path in folder.iterdir():
        stem = path.name.lstrip(".").partition(".")[0].removesuffix("_stats")
        if kind.own.fullmatch(path.name) and (stem not in stems or path.suffix == ".part"):
            path.unlink()
            removed += 1
    return removed


def write_card(folder: Path, fields: Iterable[str], rows: int) -> None:
    """Write README.md, by which Hugging Face `datasets` knows which files are the data."""
    named = ", ".join(f"`{name}`" for name in ("image", "caption", *fields))
    text = f"""---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*.parquet
---

{rows:,} image-caption pairs that `mlm-filter filter` has kept, in a shuffled order.

Columns: {named}.
"""
    with replacing(folder / "README.md") as part:
        part.write_text(text, encoding="utf-8")


@contextmanager
def _watched(progress: Progress, layout: Layout, kind: Kind, missing: set[int]) -> Iterator[None]:
    """Tell from time to time which of the missing shards are there, while Spark works."""
    stop = Event()

    def look() -> None:
        waited = set(missing)
        while not stop.wait(TELL_SECONDS):
            new = {number for number in waited if kind.finished(layout, number)}
            waited -= new
            if new:
                progress.add(len(new))

    thread = Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _check_all_there(shards: list[Shard], layout: Layout) -> None:
    missing = [
        shard.file
        for shard in shards
        if not Path(layout.folder, shard.file).is_file()
        or Path(layout.folder, shard.file).stat().st_size != shard.bytes
    ]
    if missing:
        raise UsageError(
            f"{len(missing)} of {len(shards)} shards are not in {layout.folder} as this machine"
            f" sees it ({missing[0]} ...): executors have written them to a disk of their own;"
            " --output has to be a path that all machines share"
        )
