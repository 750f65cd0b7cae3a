"""The scores table: its columns, how it is created, and how rows get all its columns."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from udfs.spark import SCORES

from . import delta

KEYS = ("uid", "image_sha", "caption_sha", "copy")
"""With `scorer`, the key of a row: one row of the pairs table, scored by one scorer."""

SCORES_TABLE = T.StructType(
    [
        delta.described("uid", T.StringType(), "key of the pair"),
        delta.described(
            "scorer", T.StringType(), "hash of the model, prompt and settings that affect scores"
        ),
        delta.described(
            "image_sha", T.StringType(), "SHA-256 of the image in hex (of its path, with paths)"
        ),
        delta.described("caption_sha", T.StringType(), "SHA-256 of the caption in hex"),
        delta.described("copy", T.IntegerType(), "0, or 1, 2 ... for further identical rows"),
        *SCORES,
        delta.described("attempts", T.IntegerType(), "how often the pair was tried"),
        delta.described("run_id", T.StringType(), "the run that wrote the row"),
        delta.described("scored_at", T.TimestampType(), "when the row was written"),
    ]
)

SKIPPING = ("uid", "scorer", "status", "run_id", "scored_at")
"""Delta keeps their minima and maxima, by which it finds the files with the rows of a commit."""

LATER_COLUMNS = ("clip_score",)
"""Columns that tables from earlier versions lack."""


def create(spark: SparkSession, ref: str) -> None:
    """Create an empty scores table if there is none; add missing columns to an older one."""
    delta.create(spark, ref, SCORES_TABLE, skipping=SKIPPING)
    delta.repeat_on_conflict(ref, partial(_add_later_columns, spark, ref))


def _add_later_columns(spark: SparkSession, ref: str) -> None:
    if added := later_columns(delta.read(spark, ref).columns):
        try:
            spark.sql(add_columns(ref, added)).collect()
        except AnalysisException:
            if later_columns(delta.read(spark, ref).columns):  # else another run was faster
                raise


def add_columns(ref: str, fields: Sequence[T.StructField]) -> str:
    """The statement that adds columns, with their comments, to a table."""
    columns = ", ".join(
        f"{delta.quoted(field.name)} {field.dataType.simpleString()}"
        f" COMMENT {delta.sql_text(field.metadata['comment'])}"
        for field in fields
    )
    return f"ALTER TABLE {delta.sql_name(ref)} ADD COLUMNS ({columns})"


def later_columns(columns: Sequence[str]) -> list[T.StructField]:
    """The columns that a table from an earlier version, with these columns, lacks."""
    return [f for f in SCORES_TABLE if f.name in LATER_COLUMNS and f.name not in columns]


def missing(columns: Sequence[str]) -> list[str]:
    """The required columns of a scores table that are not among `columns`."""
    return [f.name for f in SCORES_TABLE if f.name not in columns and f.name not in LATER_COLUMNS]


def with_all_columns(rows: DataFrame, scorer: str, run_id: str, at: datetime) -> DataFrame:
    """`rows` with the columns of SCORES_TABLE: those of the run filled in, missing ones null."""
    run_columns: dict[str, Column] = {
        "scorer": F.lit(scorer),
        "run_id": F.lit(run_id),
        "scored_at": F.lit(at),
    }
    columns = [
        run_columns.get(
            field.name, F.col(field.name) if field.name in rows.columns else F.lit(None)
        )
        .cast(field.dataType)
        .alias(field.name)
        for field in SCORES_TABLE
    ]
    return rows.select(*columns)
