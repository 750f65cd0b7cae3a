"""Which rows of the pairs table have no scores yet, and how those of a slice are read.

Works on narrow columns only (hashes, no images). DataFrame in, DataFrame out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import unquote

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from pyspark.sql import types as T

from udfs.scoring.results import DUPLICATE_UID, NULL_UID

from ..tables.delta import sql_name
from ..tables.scores import KEYS

CONTENT_KEYS = ("uid", "image_sha", "caption_sha")
BUCKETS = 4096
# Table features with which the data files alone do not tell what the table holds.
_FEATURES_BEYOND_FILES = {
    "deletionVectors",
    "columnMapping",
    "typeWidening",
    "typeWidening-preview",
}


def keys_of(pairs: DataFrame, limit: int | None) -> DataFrame:
    """For each row of `pairs` (from `with_keys`): content hashes, data file and bucket.

    `limit` takes the first rows by a hash of the uid: a sample that is the same in every run and on
    every cluster.
    """
    keys = pairs.select(
        *CONTENT_KEYS,
        F.col("_metadata.file_path").alias("file_path"),
        F.col("_metadata.file_name").alias("file_name"),
        F.pmod(F.xxhash64("uid"), F.lit(BUCKETS)).cast("int").alias("bucket"),
    )
    if limit is None:
        return keys
    return keys.orderBy(F.xxhash64("uid"), *CONTENT_KEYS, "file_name").limit(limit)


def number_copies(keys: DataFrame) -> DataFrame:
    """Add `copy` (0, 1, ... among rows with the same content), `copies` (how many there are) and
    `status`: null for the one row of each uid that is to be scored, else why it is not.

    Of rows that share a uid, the first by content is scored, whatever their order in the table.
    """
    same_uid = Window.partitionBy("uid").orderBy(*CONTENT_KEYS[1:], "file_name")
    same_content = Window.partitionBy(*CONTENT_KEYS).orderBy("file_name")
    status = (
        F.when(F.col("uid").isNull(), F.lit(NULL_UID))
        .when(F.row_number().over(same_uid) > 1, F.lit(DUPLICATE_UID))
        .otherwise(F.lit(None))
    )
    copy = (F.row_number().over(same_content) - 1).cast("int")
    copies = F.count("*").over(Window.partitionBy(*CONTENT_KEYS))
    return keys.withColumns({"copy": copy, "copies": copies, "status": status})


def unscored(
    rows: DataFrame,
    scores: DataFrame,
    scorer: str,
    retry: Sequence[str] = (),
    max_attempts: int | None = None,
) -> DataFrame:
    """The rows that have no row of `scorer` in `scores` yet, with the number of the attempt.

    Rows whose status is in `retry` are included, unless they had `max_attempts` already.
    """
    scored = scores.where(F.col("scorer") == scorer).select(
        *KEYS, F.col("attempts").alias("_attempts"), F.col("status").alias("_status")
    )
    joined = rows.alias("r").join(
        scored.alias("s"),
        on=[F.col(f"r.{key}").eqNullSafe(F.col(f"s.{key}")) for key in KEYS],
        how="left",
    )
    retried = F.col("s._status").isin(*retry) if retry else F.lit(False)
    if max_attempts is not None:
        retried &= F.col("s._attempts") < max_attempts
    return joined.where(F.col("s._status").isNull() | retried).select(
        "r.*", (F.coalesce("s._attempts", F.lit(0)) + 1).alias("attempts")
    )


def skipped_rows(rows: DataFrame) -> DataFrame:
    """The rows of `unscored` that are not for the model, with a reason in words."""
    reason = F.when(F.col("status") == NULL_UID, F.lit("the pair has no uid")).otherwise(
        F.lit("another row has the same uid")
    )
    return rows.where(F.col("status").isNotNull()).withColumn("reason", reason)


def file_name(path: str) -> str:
    """The last part of a data file's path."""
    return path.rpartition("/")[2]


def in_files(
    rows: DataFrame, paths: Sequence[str], start: int = 0, stop: int = BUCKETS
) -> DataFrame:
    """The rows in these data files, and in the buckets from `start` up to `stop`, exclusive."""
    bucket = F.col("bucket")
    selected = rows.where(F.col("file_name").isin([file_name(path) for path in paths]))
    return selected.where((bucket >= start) & (bucket < stop))


def files_hold_just_the_rows(spark: SparkSession, ref: str, columns: Sequence[str]) -> bool:
    """Whether the data files of a Delta table hold exactly its rows, with all of `columns`.

    Then a slice can be read from its files directly. A filter on the file name would scan the whole
    table: Delta 4.4 does not skip files by `_metadata.file_path`, as its query plan shows.
    """
    detail = spark.sql(f"DESCRIBE DETAIL {sql_name(ref)}").first()
    if detail is None:
        return False
    details = detail.asDict()
    properties = details.get("properties") or {}
    return not (
        _FEATURES_BEYOND_FILES & set(details.get("tableFeatures") or ())
        or properties.get("delta.columnMapping.mode", "none") != "none"
        or set(columns) & set(details.get("partitionColumns") or ())
    )


def read_files(
    spark: SparkSession,
    pairs: DataFrame,
    files: Sequence[str],
    direct: bool,
    columns: Sequence[str],
) -> DataFrame:
    """`columns` and `file_name` of the pairs in these data files.

    `direct` reads these files alone, else the table is filtered (see `files_hold_just_the_rows`).
    """
    paths = [unquote(path) for path in files]
    if direct and not any(re.search(r"[*?\[\]{}]", path) for path in paths):
        schema = T.StructType([field for field in pairs.schema if field.name in columns])
        frame = spark.read.schema(schema).parquet(*paths)
    else:
        frame = pairs.where(F.col("_metadata.file_name").isin([file_name(p) for p in files]))
    return frame.select(*columns, F.col("_metadata.file_name").alias("file_name"))
