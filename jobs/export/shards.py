"""Numbered shards of kept pairs: which sample goes into which shard, and the folder of shards.

Samples are shuffled in a fixed way, by a hash of uid and repetition: neither the partitioning nor a
second run changes their order. Executors write the shards; `manifest.json` lists them and says
`complete` when all of them exist. A run that was killed is resumed where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from udfs.inputs.image_roots import ImageRoots
from udfs.outputs import parquet_shards, tar_shards
from udfs.outputs.image_encoding import ImageEncoding
from udfs.outputs.shards import SHARD_COLUMNS, Layout, Shard, Write, write_shards

from ..core import job_runner
from ..core.errors import UsageError
from ..core.map_in_arrow import map_in_arrow
from ..core.progress import Progress
from ..core.session import session_settings
from ..tables import export_manifest
from ..tables.delta import quoted
from ..tables.filtered_pairs import BROADCAST_ROWS
from ..tables.pairs import PAIRS_KEYS
from .selected_rows import ordering, pair_columns

BUCKET_BITS = 12
PROGRESS_SECONDS = 20

OPEN_CLIP = ("jpg", "png", "jpeg", "webp")
"""The extensions of images that OpenCLIP reads (DEFAULT_IMAGE_KEY in open_clip_train/data.py)."""

_CONTENT_VERSION = 2  # of the content of a shard: a new number makes a new plan
_SHARD_SCHEMA = (
    "shard long, file string, rows long, bytes long, sha256 string, left_out long, "
    "left_out_such_as array<string>, extensions map<string,long>"
)
_IMAGE_BATCHES = {
    "spark.sql.execution.arrow.maxRecordsPerBatch": "256",
    "spark.sql.execution.arrow.maxBytesPerBatch": "32m",
}


@dataclass(frozen=True)
class ShardFormat:
    """A format of shards: how one is written and recognized, and which file names belong to it."""

    write: Write
    finished: Callable[[Layout, int], Shard | None]
    own: re.Pattern[str]
    folder: str = ""


FORMATS = {
    "webdataset": ShardFormat(tar_shards.write_tar, tar_shards.finished_tar, tar_shards.FILE_NAMES),
    "parquet": ShardFormat(
        parquet_shards.write_parquet,
        parquet_shards.finished_parquet,
        parquet_shards.FILE_NAMES,
        "data",
    ),
}


def plan_of(inputs: dict[str, Any]) -> str:
    """A hash that names the export: the same for the same tables, versions and settings."""
    text = json.dumps(inputs | {"format": _CONTENT_VERSION}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def check_output(folder: Path) -> None:
    """Raise UsageError unless `folder` is new, empty, or holds an earlier export."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output {folder} is a file: name a folder")
    manifest = folder / export_manifest.FILE_NAME
    if folder.is_dir() and any(folder.iterdir()) and not manifest.is_file():
        raise UsageError(
            f"--output {folder} has files but no {manifest.name}, so it is not an export: "
            "name another"
        )


def assign_shards(rows: DataFrame, shard_rows: int) -> tuple[DataFrame, int]:
    """The samples of `kept_rows` with `_shard`, `_index` and `repetition` (0, 1 ...); how many.

    Exact, without sorting all rows in one partition: a sample's number is the count of samples in
    the hash buckets before its own, plus its row number within its bucket.
    """
    order = F.xxhash64("uid", "repetition")
    samples = rows.withColumn(
        "repetition", F.explode(F.sequence(F.lit(0), F.col("repetitions") - 1))
    )
    samples = samples.drop("repetitions").withColumns(
        {"_order": order, "_bucket": F.shiftrightunsigned(order, 64 - BUCKET_BITS).cast("int")}
    )
    counts = sorted(tuple(row) for row in samples.groupBy("_bucket").count().collect())
    total = 0
    starts = []
    for bucket_number, count in counts:
        starts.append((bucket_number, total))
        total += count
    bucket_starts = rows.sparkSession.createDataFrame(starts, "_bucket int, _before long")
    bucket = Window.partitionBy("_bucket").orderBy("_order", *PAIRS_KEYS, "repetition")
    sample_number = F.col("_before") + F.row_number().over(bucket) - 1
    numbered = samples.join(F.broadcast(bucket_starts), "_bucket", "inner").withColumn(
        "_number", sample_number
    )
    positions = {
        "_shard": F.floor(F.col("_number") / shard_rows),
        "_index": F.col("_number") % shard_rows,
    }
    return numbered.withColumns(positions).drop("_order", "_bucket", "_before", "_number"), total


def fields_of(
    samples: DataFrame, pairs: DataFrame, reserved: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """The fields of the samples: their signals, and the columns of their pairs. And which columns
    of the pairs are left out: name -> reason (`reserved`: see `pair_columns`)."""
    signals = [n for n in samples.columns if n not in (*PAIRS_KEYS, "_shard", "_index")]
    names = dict.fromkeys(SHARD_COLUMNS, "shards have a column of this name")
    columns, left_out = pair_columns(pairs, signals, names | dict(reserved))
    return signals + columns, left_out


def rows_of(
    samples: DataFrame, pairs: DataFrame, fields: list[str], total: int, image: str
) -> DataFrame:
    """The input of the writers: one row per sample, with its image (or path) and its fields."""
    columns = [name for name in fields if name not in samples.columns]
    # Few samples are sent to every executor, so that images are shuffled once and not twice.
    narrow = F.broadcast(samples) if total <= BROADCAST_ROWS else samples
    content: list[Column] = [
        F.col(image).alias("_image"),
        F.col("caption").cast("binary").alias("_caption"),
        *(F.col(quoted(name)) for name in columns),
    ]
    rows = pairs.select(*PAIRS_KEYS, *content).join(narrow, on=list(PAIRS_KEYS), how="inner")
    return rows.select(*SHARD_COLUMNS, "uid", *map(quoted, fields))


def write(
    rows: DataFrame,
    total: int,
    layout: Layout,
    shard_format: ShardFormat,
    encoding: ImageEncoding | None = None,
    roots: ImageRoots | None = None,
) -> list[Shard]:
    """Write the shards of `rows_of` that do not exist yet; return all shards in order."""
    spark = rows.sparkSession
    done = [shard for n in range(layout.shards) if (shard := shard_format.finished(layout, n))]
    missing = set(range(layout.shards)) - {shard.shard for shard in done}
    progress = Progress(layout.shards, "shards")
    if done:
        progress.add(len(done))
    if missing:
        finished = spark.createDataFrame([(shard.shard,) for shard in done], "_shard long")
        rows = rows.join(F.broadcast(finished), "_shard", "left_anti")
        sort_columns = [name for name in rows.columns if name not in ("_image", "_caption")]
        with (
            session_settings(spark, _IMAGE_BATCHES),
            _shard_progress(progress, layout, shard_format, missing),
        ):
            ordered = rows.repartition(min(1000, len(missing)), "_shard")
            ordered = ordered.sortWithinPartitions(*ordering(rows, sort_columns))
            write_batches = partial(
                write_shards,
                layout=layout,
                write=shard_format.write,
                encoding=encoding,
                roots=roots,
            )
            for row in map_in_arrow(ordered, write_batches, _SHARD_SCHEMA).collect():
                values = row.asDict()
                values["left_out_such_as"] = tuple(values["left_out_such_as"])
                done.append(Shard(**values))
        progress.add(layout.shards - progress.done)
    done.sort(key=lambda shard: shard.shard)
    _check_all_exist(done, layout)
    written = sum(shard.rows + shard.left_out for shard in done)
    if written != total:
        raise RuntimeError(f"{written:,} of {total:,} samples were written or left out")
    return done


def extensions(shards: Iterable[Shard]) -> dict[str, int]:
    """How many images of the shards have which extension, the most frequent first."""
    counts: Counter[str] = Counter()
    for shard in shards:
        counts.update(shard.extensions)
    return dict(counts.most_common())


def say_skipped_images(counts: Mapping[str, int]) -> None:
    """Print which images in tars programs for training do not read, and how to re-encode them."""
    skipped = {name: count for name, count in counts.items() if name not in OPEN_CLIP}
    if skipped:
        job_runner.say(
            f"{sum(skipped.values()):,} images are {_listed(skipped)}, which OpenCLIP skips:"
            " --image-format jpg re-encodes them"
        )
    if len(counts) > 1:
        job_runner.say(
            f"images have several formats ({_listed(counts)}), which"
            ' `datasets.load_dataset("webdataset", ...)` refuses: --image-format jpg makes it one'
        )


def remove_others(layout: Layout, shard_format: ShardFormat, shards: Iterable[Shard]) -> int:
    """Remove the files of earlier exports from the folder; return how many."""
    folder = Path(layout.folder, shard_format.folder)
    stems = {Path(shard.file).name.partition(".")[0] for shard in shards}
    removed = 0
    for path in folder.iterdir():
        stem = path.name.lstrip(".").partition(".")[0].removesuffix("_stats")
        if shard_format.own.fullmatch(path.name) and (stem not in stems or path.suffix == ".part"):
            path.unlink()
            removed += 1
    return removed


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({count:,})" for name, count in counts.items())


@contextmanager
def _shard_progress(
    progress: Progress, layout: Layout, shard_format: ShardFormat, missing: set[int]
) -> Iterator[None]:
    """While the `with` block runs, print from time to time how many of the shards are written."""
    stop = Event()

    def print_shards() -> None:
        pending = set(missing)
        while not stop.wait(PROGRESS_SECONDS):
            new = {number for number in pending if shard_format.finished(layout, number)}
            pending -= new
            if new:
                progress.add(len(new))

    thread = Thread(target=print_shards, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _check_all_exist(shards: list[Shard], layout: Layout) -> None:
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
