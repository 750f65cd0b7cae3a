"""Reads tables of other tools, in the usual formats: ratings, instructions, signals."""

from __future__ import annotations

import os

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession

from ..core.errors import UsageError, first_line
from ..core.settings import nearest
from . import delta

CSV = (".csv", ".tsv")


def ending(ref: str) -> str:
    """The extension of a path in lower case, with its dot: ".csv"."""
    return os.path.splitext(ref.rstrip("/"))[1].lower()


def read_table(spark: SparkSession, ref: str, option: str) -> DataFrame:
    """A table as it is now: catalog name, Delta or Parquet folder, .parquet, .jsonl, .csv, .tsv.

    CSV columns are strings. `option` is for messages. Raises UsageError if there is no such table.
    """
    path, extension = delta.path_of(ref), ending(ref)
    if delta.is_name(ref) and not os.path.exists(path):
        return delta.read(spark, ref)
    try:
        if extension in CSV:
            if extension == ".tsv":  # a title may begin with a quotation mark
                return spark.read.csv(path, sep="\t", header=True, quote="")
            return spark.read.csv(path, header=True, multiLine=True, escape='"')
        if extension in (".jsonl", ".ndjson", ".json"):
            frame = spark.read.json(path, multiLine=extension == ".json")
            if "_corrupt_record" in frame.columns:
                raise UsageError(f"{option} {ref}: some of it is not JSON")
            return frame
        if delta.exists(spark, ref):  # a version, so that all passes see the same rows
            return delta.read(spark, ref, delta.version(spark, ref))
        return spark.read.parquet(path)
    except AnalysisException as error:
        if (error.getCondition() or "").startswith("PATH_NOT_FOUND"):
            raise UsageError(f"{option} {ref}: there is no such table or file") from None
        raise UsageError(f"{option} {ref}: {first_line(error)}") from None


def find_column(frame: DataFrame, name: str, option: str, table: str) -> str:
    """The column called `name`: the one of exactly this name, else the one in another case.

    `option` and `table` are what messages call the option and the table. Raises UsageError where
    there is no such column, with the nearest name, or more than one.
    """
    matches = [column for column in frame.columns if column == name]
    matches = matches or [column for column in frame.columns if column.lower() == name.lower()]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UsageError(f"{option}: {table} has the columns {' and '.join(matches)}; rename one")
    guess = nearest(name, frame.columns)
    hint = f"did you mean {guess}?" if guess else f"it has {', '.join(frame.columns)}"
    raise UsageError(f"{option}: {table} has no column {name}; {hint}")
