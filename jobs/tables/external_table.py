"""Tables of any usual form, as other tools leave them: ratings, instructions, signals."""

from __future__ import annotations

import os

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession

from ..core.errors import UsageError, first_line
from ..core.settings import nearest
from . import delta

CSV = (".csv", ".tsv")


def ending(ref: str) -> str:
    """The ending of a path in lower case, dot included: ".csv"."""
    return os.path.splitext(ref.rstrip("/"))[1].lower()


def read_table(spark: SparkSession, ref: str, option: str) -> DataFrame:
    """A table as it is now: catalog name, Delta or Parquet folder, .parquet, .jsonl, .csv, .tsv.

    CSV columns are strings. Raises UsageError where there is no such table.
    """
    place, kind = delta.path_of(ref), ending(ref)
    if delta.is_name(ref) and not os.path.exists(place):
        return delta.read(spark, ref)
    try:
        if kind in CSV:
            separator = "\t" if kind == ".tsv" else ","
            return spark.read.csv(place, sep=separator, header=True, multiLine=True, escape='"')
        if kind in (".jsonl", ".ndjson", ".json"):
            return spark.read.json(place, multiLine=kind == ".json")
        if delta.exists(spark, ref):  # a version, so that all passes see the same rows
            return delta.read(spark, ref, delta.version(spark, ref))
        return spark.read.parquet(place)
    except AnalysisException as error:
        if (error.getCondition() or "").startswith("PATH_NOT_FOUND"):
            raise UsageError(f"{option} {ref}: there is no such table or file") from None
        raise UsageError(f"{option} {ref}: {first_line(error)}") from None


def find_column(frame: DataFrame, name: str, option: str, place: str) -> str:
    """`name`, if the table has it. Raises UsageError that names the nearest."""
    if name in frame.columns:
        return name
    guess = nearest(name, frame.columns)
    hint = f"did you mean {guess}?" if guess else f"it has {', '.join(frame.columns)}"
    raise UsageError(f"{option}: {place} has no column {name}; {hint}")
