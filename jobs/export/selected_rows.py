"""The kept rows of a selection, for all formats: keys, repetitions, signals, pair columns."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from ..tables.delta import quoted
from ..tables.pairs import PAIRS_KEYS

_VERDICT = (
    "copy",
    "scorer",
    "status",
    "keep",
    "repetitions",
    "first_failed_rule",
    "reason",
    "rules",
)
_PLAIN_TYPES = (T.StringType, T.BooleanType, T.IntegralType, T.FloatType, T.DoubleType)


def signals_in(selection: DataFrame) -> list[str]:
    """The columns of a selection table that hold scores and signals, rather than the verdict."""
    others = {*PAIRS_KEYS, *_VERDICT}
    return [name for name in plain_columns(selection) if name not in others]


def plain_columns(frame: DataFrame) -> list[str]:
    """The columns that every format can hold: text, numbers, booleans."""
    return [field.name for field in frame.schema if isinstance(field.dataType, _PLAIN_TYPES)]


def kept_uids(selection: DataFrame) -> DataFrame:
    """`uid` and `repetitions` (at least 1) of each kept row."""
    return selection.where("keep").select("uid", _repetitions(selection))


def kept_rows(selection: DataFrame) -> DataFrame:
    """Keys, `repetitions` and signals of the kept rows, each key once.

    If several rows of one key are kept (copies that the rules do not tell apart), it is the first
    by `copy` and then by its values.
    """
    order = ["copy"] if "copy" in selection.columns else []
    values = [*order, "repetitions", *signals_in(selection)]
    rows = selection.where("keep").withColumn("repetitions", _repetitions(selection))
    first = F.min(F.struct(*map(quoted, values))).alias("_first")
    rows = rows.groupBy(*PAIRS_KEYS).agg(first)
    fields = [F.col("_first")[name].alias(name) for name in values if name not in order]
    return rows.select(*PAIRS_KEYS, *fields)


def with_existing_pair(rows: DataFrame, pairs: DataFrame) -> DataFrame:
    """The kept rows whose pair is in the pairs table, of which only the keys are read."""
    return rows.join(pairs.select(*PAIRS_KEYS), on=list(PAIRS_KEYS), how="left_semi")


def pair_columns(pairs: DataFrame, signals: list[str], excluded: set[str]) -> list[str]:
    """The columns of the pairs table to export: plain ones whose name no signal has.

    `excluded`: names, in any case, of columns that are not exported.
    """
    taken = {name.lower() for name in (*signals, *PAIRS_KEYS)} | {name.lower() for name in excluded}
    return [name for name in plain_columns(pairs) if name.lower() not in taken]


def _repetitions(selection: DataFrame) -> Column:
    if "repetitions" not in selection.columns:  # a table of an earlier version
        return F.lit(1).alias("repetitions")
    times = F.greatest(F.coalesce("repetitions", F.lit(1)), F.lit(1))
    return times.cast("int").alias("repetitions")
