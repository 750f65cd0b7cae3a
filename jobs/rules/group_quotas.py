"""Quotas: where a best fraction ends in each group of rows, and the minimum of each group.

Each group is ordered by a window, which Spark sorts with spilling to disk: a group that holds most
rows is sorted by one task, in bounded memory. Out of it comes one row a group, the place of the
last row that is taken; that is joined to the frame, where taking is a comparison.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from ..tables.scores import KEYS
from .spark_columns import column, height, is_cut_in
from .syntax_tree import Best, Signal
from .table_statistics import Answers, Quota, refuse_twins, takes_part, tie_order

_PLACE = ("depth", "hash", *KEYS)
_BROADCAST_GROUPS = 100_000


@dataclass(frozen=True)
class Ends:
    """Where the taken rows of each group end: one row a group, to be joined to a frame.

    Attributes:
        rows: the group's columns and the place of the last row, a column `name`.
        groups: the signals that make the groups.
        name: of the column.
        quota: what is told of it.
    """

    rows: DataFrame
    groups: tuple[Signal, ...]
    name: str
    quota: Quota

    def join(self, frame: DataFrame) -> DataFrame:
        """``frame`` with the column; null in groups that have no end."""
        keys = _keys(self.groups)
        rows = self.rows.select(*(f"of{key}" for key in keys), self.name)
        rows = F.broadcast(rows) if self.quota.groups <= _BROADCAST_GROUPS else rows
        joined = frame.withColumns(keys).join(rows, on=_same(list(keys)), how="left")
        return joined.drop(*keys, *(f"of{key}" for key in keys))


def quota_ends(frame: DataFrame, best: Best, answers: Answers, name: str) -> Ends:
    """Where ``best`` ends in each group, in the column ``name``; null where nothing is taken."""
    if best.percent:  # exactly: floor(size * numerator / denominator) in whole numbers
        numerator, denominator = best.amount.as_integer_ratio()
        product = f"cast(size as decimal(17, 0)) * cast({numerator} as decimal(21, 0))"
        taken = F.expr(f"{product} div cast({100 * denominator} as decimal(21, 0))")
    else:
        taken = F.least("size", F.lit(int(best.amount)))
    rows, quota = _ends(_rows(frame, best, best.per, F.lit(False), answers), taken, name)
    return Ends(rows, best.per, name, quota)


def minimum_ends(frame: DataFrame, best: Best, answers: Answers, name: str) -> Ends:
    """The row that makes the minimum of each group full, in the column ``name``.

    Rows that are taken anyway come first, then the best of the others. Null in groups that are no
    larger than the minimum. ``frame`` has the ends of ``best`` itself.
    """
    taken = F.least("size", F.lit(best.at_least))
    rows = _rows(frame, best, best.at_least_per, is_cut_in(best, answers), answers)
    rows, quota = _ends(rows, taken, name)
    return Ends(rows.where("taken < size"), best.at_least_per, name, quota)


def _keys(groups: Sequence[Signal]) -> dict[str, Column]:
    return {f"__group_{number}": column(signal) for number, signal in enumerate(groups)}


def _rows(
    frame: DataFrame, best: Best, groups: Sequence[Signal], inside: Column, answers: Answers
) -> DataFrame:
    """The rows that have a value: their group, whether they are `inside` already, their place."""
    depth = -height(best, answers)
    keys = [key.alias(name) for name, key in _keys(groups).items()]
    rows = frame.where(takes_part() & depth.isNotNull())
    return rows.select(*keys, inside.alias("inside"), depth.alias("depth"), *tie_order())


def _ends(rows: DataFrame, taken: Column, name: str) -> tuple[DataFrame, Quota]:
    """One row for each group from which something is taken: the place of the last row taken."""
    keys = [key for key in rows.columns if key.startswith("__group_")]
    counts = (F.count("*").alias("size"), F.count_if("inside").alias("before"))
    sizes = rows.groupBy(*keys).agg(*counts).withColumn("taken", taken).localCheckpoint()
    more = F.greatest(F.lit(0), F.col("taken") - F.col("before"))
    (row,) = sizes.agg(F.count("*"), F.sum("size"), F.sum("taken"), F.sum(more)).collect()
    window = Window.partitionBy(*keys).orderBy(F.col("inside").desc(), *_PLACE)
    here = F.struct(*_PLACE)
    numbered = rows.withColumns(
        {"number": F.row_number().over(window), "next": F.lead(here).over(window)}
    )
    limits = sizes.select(*(F.col(key).alias(f"of{key}") for key in keys), "taken", "size")
    ends = numbered.join(limits, on=_same(keys), how="inner").where("number = taken")
    columns = [F.col(f"of{key}") for key in keys]
    # a checkpoint, so that plans do not grow with the number of quotas; one row a group
    ends = ends.select(*columns, here.alias(name), "uid", "next", "taken", "size").localCheckpoint()
    twins = ends.where(F.col(name) == F.col("next")).select("uid").take(1)
    refuse_twins(len(twins), twins[0]["uid"] if twins else None)
    return ends.drop("uid", "next"), Quota(name, *(value or 0 for value in row))


def _same(keys: Sequence[str]) -> list[Column]:
    return [F.col(key).eqNullSafe(F.col(f"of{key}")) for key in keys]
