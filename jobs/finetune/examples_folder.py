"""Tables -> the folder of examples that training reads, written whole or not at all.

Rows stream through the driver one after the other. Groups that are held out go to a folder of their
own, of which training sees nothing.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import functions as F

from udfs.core.metrics import METRICS
from udfs.inputs import captions, images
from udfs.training.examples import (
    CONVERSATION_SCHEMA,
    CONVERSATIONS,
    HELD_OUT,
    IMAGE_SCHEMA,
    IMAGES,
    INSTRUCTION_SCHEMA,
    INSTRUCTIONS,
)

from ..core.errors import UsageError
from .conversation_table import Conversation
from .instruction_tables import Tables

ROWS_AT_ONCE = 256


def write_examples(
    tables: Tables, conversations: Iterable[Conversation], folder: Path
) -> dict[str, Any]:
    """Write the folder; return what it holds: `instructions` and `held_out` by metric, `images`,
    `conversations`, and `left_out` by reason.

    An image that cannot be decoded, or that is also held out, is left out with all that is said of
    it. Raises UsageError where nothing is left.
    """
    own = {IMAGES, INSTRUCTIONS, CONVERSATIONS, HELD_OUT}
    if folder.exists() and {path.name for path in folder.iterdir()} - own:
        raise UsageError(f"--work: {folder} holds files that are no examples of this job")
    scratch = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    left_out = dict(tables.left_out)
    held_out_hashes: set[bytes] = set()  # hashes of the held-out images
    counts: dict[str, Any] = {}
    for held_out in (True, False):
        target = scratch / HELD_OUT if held_out else scratch
        target.mkdir(exist_ok=True)
        rows = tables.images.where(F.col("held_out") == held_out).orderBy("uid")
        usable: set[str] = set()
        conversation_list = [] if held_out else list(conversations)
        writer = _images(
            rows.select("uid", "image").toLocalIterator(), held_out, held_out_hashes, usable
        )
        _write_images(target / IMAGES, _with_conversations(writer, conversation_list, usable))
        answers = tables.instructions.where(F.col("held_out") == held_out)
        found: dict[str, int] = {}
        _write_table(
            target / INSTRUCTIONS, INSTRUCTION_SCHEMA, _instructions(answers, usable, found)
        )
        dropped = answers.count() - sum(found.values())
        if dropped:
            reason = "image that cannot be decoded" + ("" if held_out else " or is held out")
            left_out[reason] = left_out.get(reason, 0) + dropped
        turns = [
            {
                "uid": conversation.uid,
                "turns": [{"role": role, "text": text} for role, text in conversation.turns],
            }
            for conversation in conversation_list
            if conversation.uid is None or conversation.uid in usable
        ]
        if len(turns) < len(conversation_list):
            left_out["conversation whose image cannot be decoded"] = len(conversation_list) - len(
                turns
            )
        _write_table(target / CONVERSATIONS, CONVERSATION_SCHEMA, iter(turns))
        by_metric = {metric: found[metric] for metric in METRICS if metric in found}
        counts |= (
            {"held_out": by_metric}
            if held_out
            else {"instructions": by_metric, "images": len(usable), "conversations": len(turns)}
        )
    if not counts["instructions"]:
        raise UsageError("no instruction is left to train on: none of the images can be decoded")
    if not counts["held_out"]:
        shutil.rmtree(scratch / HELD_OUT)
    shutil.rmtree(folder, ignore_errors=True)
    scratch.rename(folder)
    return counts | {"left_out": left_out}


def identity_of(folder: Path, *settings: Any) -> str:
    """A hash of the examples and of settings that can be written as JSON."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            digest.update(str(path.relative_to(folder)).encode())
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _images(
    rows: Iterator[Any], held_out: bool, held_out_hashes: set[bytes], usable: set[str]
) -> Iterator[dict[str, Any]]:
    """The images that can be trained on; their uids go into `usable`."""
    for row in rows:
        data = bytes(row["image"])
        digest = hashlib.sha256(data).digest()
        if held_out:
            held_out_hashes.add(digest)
        elif digest in held_out_hashes:
            continue
        if _decodes(data):
            usable.add(row["uid"])
            yield {"uid": row["uid"], "image": data}


def _with_conversations(
    rows: Iterator[dict[str, Any]], conversation_list: list[Conversation], usable: set[str]
) -> Iterator[dict[str, Any]]:
    yield from rows
    for conversation in conversation_list:
        if (
            conversation.uid is not None
            and conversation.uid not in usable
            and _decodes(conversation.image or b"")
        ):
            usable.add(conversation.uid)
            yield {"uid": conversation.uid, "image": conversation.image}


def _decodes(data: bytes) -> bool:
    try:
        images.decode(data)
    except images.ImageError:
        return False
    return True


def _instructions(rows: Any, usable: set[str], counts: dict[str, int]) -> Iterator[dict[str, Any]]:
    # Captions as bytes: they may hold what is no text.
    columns = [
        F.col(f.name).cast("binary") if f.name in ("caption", "reason") else F.col(f.name)
        for f in INSTRUCTION_SCHEMA
    ]
    for row in rows.orderBy("uid", "caption", "metric").select(*columns).toLocalIterator():
        if row["uid"] in usable:
            found = row.asDict()
            found["caption"] = captions.clean(found["caption"])
            found["reason"] = " ".join(captions.clean(found["reason"]).split()) or None
            counts[row["metric"]] = counts.get(row["metric"], 0) + 1
            yield found


def _write_images(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Arrow's own format, uncompressed: training maps the file into memory."""
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, IMAGE_SCHEMA) as writer:
        for row in rows:
            writer.write_batch(pa.RecordBatch.from_pylist([row], IMAGE_SCHEMA))


def _write_table(path: Path, schema: pa.Schema, rows: Iterator[dict[str, Any]]) -> None:
    with pq.ParquetWriter(path, schema) as writer:
        batch: list[dict[str, Any]] = []
        for row in rows:
            batch.append(row)
            if len(batch) == ROWS_AT_ONCE:
                writer.write_table(pa.Table.from_pylist(batch, schema))
                batch = []
        if batch:
            writer.write_table(pa.Table.from_pylist(batch, schema))
