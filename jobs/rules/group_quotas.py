"""Quotas: where a best fraction ends in each group of rows, and minimum rows per group.

A window orders each group. Spark spills its sort to disk, so even a group that holds most rows is
sorted by one task in bounded memory. The result has one row for each group, with the sort key of
the last row taken. It is joined to the frame, where taking a row is a comparison of sort keys.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from ..tables.scores import KEYS
from .spark_columns import column, is_among_best, ranking_value
from .syntax_tree import Best, Signal
from .table_statistics import Quota, TableStatistics, is_scored, refuse_duplicates, tie_order

_SORT_KEY = ("negated_value", "hash", *KEYS)
_BROADCAST_GROUPS = 100_000


@dataclass(frozen=True)
class GroupCutoffs:
    """The last row taken in each group, to be joined to a frame.

    Attributes:
        rows: one row for each group: the group's columns, and the column `name` with the sort key
            of the last row taken.
        groups: the signals that define the groups.
        name: the name of that column.
        quota: counts for messages.
    """

    rows: DataFrame
    groups: tuple[Signal, ...]
    name: str
    quota: Quota

    def join(self, frame: DataFrame) -> DataFrame:
        """``frame`` with the column; null in groups that have no cutoff."""
        keys = _keys(self.groups)
        rows = self.rows.select(*(f"of{key}" for key in keys), self.name)
        rows = F.broadcast(rows) if self.quota.groups <= _BROADCAST_GROUPS else rows
        joined = frame.withColumns(keys).join(rows, on=_same_group(list(keys)), how="left")
        return joined.drop(*keys, *(f"of{key}" for key in keys))


def quota_cutoffs(
    frame: DataFrame, best: Best, statistics: TableStatistics, name: str
) -> GroupCutoffs:
    """Where ``best`` ends in each group, as column ``name``; null where nothing is taken."""
    if best.percent:  # exactly: floor(size * numerator / denominator) in whole numbers
        numerator, denominator = best.amount.as_integer_ratio()
        product = f"cast(size as decimal(17, 0)) * cast({numerator} as decimal(21, 0))"
        taken = F.expr(f"{product} div cast({100 * denominator} as decimal(21, 0))")
    else:
        taken = F.least("size", F.lit(int(best.amount)))
    rows, quota = _group_cutoffs(
        _rows(frame, best, best.per, F.lit(False), statistics), taken, name
    )
    return GroupCutoffs(rows, best.per, name, quota)


def minimum_cutoffs(
    frame: DataFrame, best: Best, statistics: TableStatistics, name: str
) -> GroupCutoffs:
    """The row that fills the minimum of each group, as column ``name``.

    Rows that are taken anyway come first, then the best of the others. Null in groups no larger
    than the minimum. ``frame`` must have the quota column of ``best`` itself.
    """
    taken = F.least("size", F.lit(best.at_least))
    rows = _rows(frame, best, best.at_least_per, is_among_best(best, statistics), statistics)
    rows, quota = _group_cutoffs(rows, taken, name)
    return GroupCutoffs(rows.where("taken < size"), best.at_least_per, name, quota)


def _keys(groups: Sequence[Signal]) -> dict[str, Column]:
    return {f"__group_{number}": column(signal) for number, signal in enumerate(groups)}


def _rows(
    frame: DataFrame,
    best: Best,
    groups: Sequence[Signal],
    is_taken: Column,
    statistics: TableStatistics,
) -> DataFrame:
    """The rows that have a value: group, whether already taken (`is_taken`), columns to sort by."""
    negated_value = -ranking_value(best, statistics)
    keys = [key.alias(name) for name, key in _keys(groups).items()]
    rows = frame.where(is_scored() & negated_value.isNotNull())
    return rows.select(
        *keys, is_taken.alias("is_taken"), negated_value.alias("negated_value"), *tie_order()
    )


def _group_cutoffs(rows: DataFrame, taken: Column, name: str) -> tuple[DataFrame, Quota]:
    """One row for each group of which any row is taken: the sort key of the last row taken."""
    keys = [key for key in rows.columns if key.startswith("__group_")]
    counts = (F.count("*").alias("size"), F.count_if("is_taken").alias("already_taken"))
    sizes = rows.groupBy(*keys).agg(*counts).withColumn("taken", taken).localCheckpoint()
    added = F.greatest(F.lit(0), F.col("taken") - F.col("already_taken"))
    (row,) = sizes.agg(F.count("*"), F.sum("size"), F.sum("taken"), F.sum(added)).collect()
    window = Window.partitionBy(*keys).orderBy(F.col("is_taken").desc(), *_SORT_KEY)
    sort_key = F.struct(*_SORT_KEY)
    ranked = rows.withColumns(
        {"number": F.row_number().over(window), "next": F.lead(sort_key).over(window)}
    )
    sizes_by_group = sizes.select(*(F.col(key).alias(f"of{key}") for key in keys), "taken", "size")
    last = ranked.join(sizes_by_group, on=_same_group(keys), how="inner").where("number = taken")
    columns = [F.col(f"of{key}") for key in keys]
    last = last.select(*columns, sort_key.alias(name), "uid", "next", "taken", "size")
    last = last.localCheckpoint()  # one row for each group; keeps plans small with many quotas
    duplicates = last.where(F.col(name) == F.col("next")).select("uid").take(1)
    refuse_duplicates(len(duplicates), duplicates[0]["uid"] if duplicates else None)
    return last.drop("uid", "next"), Quota(name, *(value or 0 for value in row))


def _same_group(keys: Sequence[str]) -> list[Column]:
    return [F.col(key).eqNullSafe(F.col(f"of{key}")) for key in keys]
