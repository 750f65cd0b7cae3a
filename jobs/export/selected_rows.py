"""The kept rows of a selection, for all formats: keys, repetitions, signals, pair columns."""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from ..tables.delta import quoted
from ..tables.pairs import PAIRS_KEYS
from .column_report import REPLACED

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
_ORDERED_TYPES = (
    *(T.StringType, T.BooleanType, T.NumericType, T.BinaryType),
    *(T.DateType, T.TimestampType, T.TimestampNTZType),
)


def signals_in(selection: DataFrame) -> list[str]:
    """The columns of a selection table that hold scores and signals, rather than the verdict."""
    others = {*PAIRS_KEYS, *_VERDICT}
    return [name for name in selection.columns if name not in others]


def writable(frame: DataFrame) -> tuple[DataFrame, dict[str, str]]:
    """`frame` with text in place of types that files cannot hold (intervals, variants, void), and
    which columns that concerns: name -> what happens to it."""
    texts: dict[str, Column] = {}
    changed: dict[str, str] = {}
    for field in frame.schema:
        if not _of_types(field.dataType, _ORDERED_TYPES, maps=True):
            nested = T.ArrayType | T.MapType | T.StructType | T.VariantType
            column = F.col(quoted(field.name))
            is_json = isinstance(field.dataType, nested)
            texts[field.name] = F.to_json(column) if is_json else column.cast("string")
            changed[field.name] = f"{field.dataType.simpleString()} is written as text"
    return frame.withColumns(texts), changed


def ordering(frame: DataFrame, names: list[str]) -> list[Column]:
    """The columns as keys to sort by: maps, which have no order, as their text."""
    columns = []
    for name in names:
        column = F.col(quoted(name))
        ordered = _of_types(frame.schema[name].dataType, _ORDERED_TYPES, maps=False)
        columns.append(column if ordered else F.to_json(F.struct(column)).alias(name))
    return columns


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
    order_by = F.struct(*ordering(rows, values))
    first = F.min_by(F.struct(*map(quoted, values)), order_by).alias("_first")
    rows = rows.groupBy(*PAIRS_KEYS).agg(first)
    fields = [F.col("_first")[name].alias(name) for name in values if name not in order]
    return rows.select(*PAIRS_KEYS, *fields)


def with_existing_pair(rows: DataFrame, pairs: DataFrame) -> DataFrame:
    """The kept rows whose pair is in the pairs table, of which only the keys are read."""
    return rows.join(pairs.select(*PAIRS_KEYS), on=list(PAIRS_KEYS), how="left_semi")


def pair_columns(
    pairs: DataFrame, signals: list[str], reserved: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """The columns of the pairs table to export; and why others are not: name -> reason.

    `reserved` has names, in lower case, that have a meaning in the export, and the reason to give;
    an empty one says that nothing is lost.
    """
    reasons = dict.fromkeys(PAIRS_KEYS, "")
    reasons |= {name.lower(): REPLACED for name in signals}
    reasons |= reserved
    names = [name for name in pairs.columns if name.lower() not in reasons]
    left_out = {name: reasons[name.lower()] for name in pairs.columns if name not in names}
    return names, {name: reason for name, reason in left_out.items() if reason}


def _of_types(data_type: T.DataType, types: tuple[type[T.DataType], ...], maps: bool) -> bool:
    """Whether a type consists of `types` only, at any depth."""
    if isinstance(data_type, T.ArrayType):
        return _of_types(data_type.elementType, types, maps)
    if isinstance(data_type, T.MapType):
        parts = [data_type.keyType, data_type.valueType]
        return maps and all(_of_types(part, types, maps) for part in parts)
    if isinstance(data_type, T.StructType):
        parts = [field.dataType for field in data_type]
        return bool(parts) and all(_of_types(part, types, maps) for part in parts)
    return isinstance(data_type, types)


def _repetitions(selection: DataFrame) -> Column:
    if "repetitions" not in selection.columns:  # a table of an earlier version
        return F.lit(1).alias("repetitions")
    times = F.greatest(F.coalesce("repetitions", F.lit(1)), F.lit(1))
    return times.cast("int").alias("repetitions")
