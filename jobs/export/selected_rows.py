"""What a selection keeps, as exports need it: keys, repetitions, signals, the pairs' columns."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from ..tables.delta import quoted
from ..tables.pairs import PAIRS_KEYS

_FATE = ("copy", "scorer", "status", "keep", "repetitions", "first_failed_rule", "reason", "rules")
_PLAIN = (T.StringType, T.BooleanType, T.IntegralType, T.FloatType, T.DoubleType)


def signals_in(selection: DataFrame) -> list[str]:
    """The scores and signals of a selection table: what it says of a pair beside its fate."""
    apart = {*PAIRS_KEYS, *_FATE}
    return [name for name in plain_columns(selection) if name not in apart]


def plain_columns(frame: DataFrame) -> list[str]:
    """The columns that every format can hold: text, numbers, true or false."""
    return [field.name for field in frame.schema if isinstance(field.dataType, _PLAIN)]


def kept_uids(selection: DataFrame) -> DataFrame:
    """`uid` and `repetitions` (at least 1) of the rows that are kept, as they stand there."""
    return selection.where("keep").select("uid", _repetitions(selection))


def kept_rows(selection: DataFrame) -> DataFrame:
    """Keys, `repetitions` and signals of the kept rows, each key once.

    Where rows of one key are kept together (copies that a rule does not tell apart), it is the
    first by `copy` and then by its values.
    """
    order = ["copy"] if "copy" in selection.columns else []
    values = [*order, "repetitions", *signals_in(selection)]
    kept = selection.where("keep").withColumn("repetitions", _repetitions(selection))
    first = F.min(F.struct(*map(quoted, values))).alias("_first")
    rows = kept.groupBy(*PAIRS_KEYS).agg(first)
    told = [F.col("_first")[name].alias(name) for name in values if name not in order]
    return rows.select(*PAIRS_KEYS, *told)


def without_lost(kept: DataFrame, pairs: DataFrame) -> DataFrame:
    """The kept rows whose pair is (still) in the pairs table; reads the keys of that only."""
    return kept.join(pairs.select(*PAIRS_KEYS), on=list(PAIRS_KEYS), how="left_semi")


def own_columns(pairs: DataFrame, signals: list[str], apart: set[str]) -> list[str]:
    """The pairs table's columns to pass on: plain ones that no signal takes the name of."""
    taken = {name.lower() for name in (*signals, *PAIRS_KEYS)} | {name.lower() for name in apart}
    return [name for name in plain_columns(pairs) if name.lower() not in taken]


def _repetitions(selection: DataFrame) -> Column:
    if "repetitions" not in selection.columns:  # written before there were any
        return F.lit(1).alias("repetitions")
    times = F.greatest(F.coalesce("repetitions", F.lit(1)), F.lit(1))
    return times.cast("int").alias("repetitions")
