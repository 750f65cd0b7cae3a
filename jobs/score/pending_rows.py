"""What there is to score: each row of the pairs table once, less what has been scored before.

All of it on narrow columns (hashes, no images). DataFrame in, DataFrame out.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from pyspark.sql import types as T

from udfs.scoring.results import DUPLICATE_UID, NULL_UID

from ..tables.delta import sql_name
from ..tables.scores import KEYS

CONTENT = ("uid", "image_sha", "caption_sha")
BUCKETS = 4096
# Table features with which the data files alone do not say what the table holds.
_NOT_PLAIN = {"deletionVectors", "columnMapping", "typeWidening", "typeWidening-preview"}


def keys_of(pairs: DataFrame, limit: int | None) -> DataFrame:
    """One row a row of `pairs` (as `with_keys` returns it): content hashes, data file, and bucket.

    `limit` takes a sample that is the same in every run and on every cluster: the first rows by
    a hash of the uid.
    """
    keys = pairs.select(
        *CONTENT,
        F.col("_metadata.file_path").alias("file_path"),
        F.col("_metadata.file_name").alias("file_name"),
        F.pmod(F.xxhash64("uid"), F.lit(BUCKETS)).cast("int").alias("bucket"),
    )
    if limit is None:
        return keys
    return keys.orderBy(F.xxhash64("uid"), *CONTENT, "file_name").limit(limit)


def numbered(keys: DataFrame) -> DataFrame:
    """Add `copy` (0, 1, ... among rows of the same content), their number `copies`, and `status`:
    null for the one row of each uid that is to be scored, else why not.

    Of rows that share a uid the first by content is scored, whatever their order in the table.
    """
    same_uid = Window.partitionBy("uid").orderBy(*CONTENT[1:], "file_name")
    same_content = Window.partitionBy(*CONTENT).orderBy("file_name")
    status = (
        F.when(F.col("uid").isNull(), F.lit(NULL_UID))
        .when(F.row_number().over(same_uid) > 1, F.lit(DUPLICATE_UID))
        .otherwise(F.lit(None))
    )
    copy = (F.row_number().over(same_content) - 1).cast("int")
    copies = F.count("*").over(Window.partitionBy(*CONTENT))
    return keys.withColumns({"copy": copy, "copies": copies, "status": status})


def unscored(rows: DataFrame, scores: DataFrame, scorer: str, retry: Sequence[str]) -> DataFrame:
    """The rows that `scorer` has not answered yet in `scores`, with the number of their attempt.

    Rows whose answer was a status in `retry` count as not answered.
    """
    known = scores.where(F.col("scorer") == scorer).select(
        *KEYS, F.col("attempts").alias("_attempts"), F.col("status").alias("_status")
    )
    joined = rows.alias("r").join(
        known.alias("k"),
        on=[F.col(f"r.{key}").eqNullSafe(F.col(f"k.{key}")) for key in KEYS],
        how="left",
    )
    again = F.col("k._status").isin(*retry) if retry else F.lit(False)
    return joined.where(F.col("k._status").isNull() | again).select(
        "r.*", (F.coalesce("k._attempts", F.lit(0)) + 1).alias("attempts")
    )


def without_model(rows: DataFrame) -> DataFrame:
    """The rows of `unscored` whose status is known already, with a reason in words."""
    reason = F.when(F.col("status") == NULL_UID, F.lit("the pair has no uid")).otherwise(
        F.lit("another row has the same uid")
    )
    return rows.where(F.col("status").isNotNull()).withColumn("reason", reason)


@dataclass
class File:
    """A data file with `rows` rows to score, of which those from bucket `start` on are left."""

    path: str
    rows: int
    start: int = 0


@dataclass(frozen=True)
class Slice:
    """Whole files, or a part of one: the rows of the buckets from `start` up to `stop`."""

    paths: tuple[str, ...]
    start: int = 0
    stop: int = BUCKETS


def next_slice(files: deque[File], rows: int) -> Slice:
    """Take about `rows` rows from `files`: several small files or a part of a large one."""
    first = files[0]
    left = first.rows * (BUCKETS - first.start) / BUCKETS
    if first.start > 0 or left > 1.5 * rows:
        stop = min(BUCKETS, first.start + max(1, round(BUCKETS * rows / first.rows)))
        part = Slice((first.path,), first.start, stop)
        first.start = stop
        if stop == BUCKETS:
            files.popleft()
        return part
    taken: list[str] = []
    total = 0
    while files and (not taken or total + files[0].rows <= 1.5 * rows):
        total += files[0].rows
        taken.append(files.popleft().path)
    return Slice(tuple(taken))


def name_of(path: str) -> str:
    """The last part of a data file's path."""
    return path.rpartition("/")[2]


def in_slice(todo: DataFrame, part: Slice) -> DataFrame:
    """The rows of `todo` that lie in this slice."""
    bucket = F.col("bucket")
    return todo.where(
        F.col("file_name").isin([name_of(path) for path in part.paths])
        & (bucket >= part.start)
        & (bucket < part.stop)
    )


def is_plain(spark: SparkSession, ref: str, columns: Sequence[str]) -> bool:
    """Whether the data files of a Delta table hold just its rows and all of `columns`: then a slice
    can be read from its files alone, where a filter on files would scan the whole table (Delta
    4.4 does not skip files by `_metadata.file_path`; seen in the query plan)."""
    detail = spark.sql(f"DESCRIBE DETAIL {sql_name(ref)}").first()
    if detail is None:
        return False
    found = detail.asDict()
    properties = found.get("properties") or {}
    return not (
        _NOT_PLAIN & set(found.get("tableFeatures") or ())
        or properties.get("delta.columnMapping.mode", "none") != "none"
        or set(columns) & set(found.get("partitionColumns") or ())
    )


def read_slice(
    spark: SparkSession, pairs: DataFrame, part: Slice, plain: bool, columns: Sequence[str]
) -> DataFrame:
    """`columns` and the file name of the pairs in the slice's files."""
    paths = [unquote(path) for path in part.paths]
    if plain and not any(re.search(r"[*?\[\]{}]", path) for path in paths):
        schema = T.StructType([field for field in pairs.schema if field.name in columns])
        frame = spark.read.schema(schema).parquet(*paths)
    else:
        frame = pairs.where(F.col("_metadata.file_name").isin([name_of(p) for p in part.paths]))
    return frame.select(*columns, F.col("_metadata.file_name").alias("file_name"))
