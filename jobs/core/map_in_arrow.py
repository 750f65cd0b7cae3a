"""`DataFrame.mapInArrow` for tables with any names of columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import types as T

Batches = Iterator[Any]


def map_in_arrow(
    frame: DataFrame, function: Callable[[Batches], Batches], schema: T.StructType | str
) -> DataFrame:
    """`frame.mapInArrow(function, schema)`, which by itself takes a dot in a column's name for a
    member of a struct (PySpark 4.2)."""
    names = frame.columns
    if not any("." in name or "`" in name for name in names):
        return frame.mapInArrow(function, schema)

    def with_names(batches: Batches) -> Batches:
        return function(batch.rename_columns(names) for batch in batches)

    return frame.toDF(*(f"_{n}" for n in range(len(names)))).mapInArrow(with_names, schema)
