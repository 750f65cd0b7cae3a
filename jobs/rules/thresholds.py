"""Finds the cutoffs of best fractions, and quantiles, exactly and without ranking the table.

:func:`kth_largest` brackets the k-th value between approximate quantiles, counts exactly, and
repeats until few enough distinct values are left to fit in the driver. Only if not all ties at that
value can be taken are they ordered, by a histogram of their hashes. A cutoff is a handful of
constants, so applying it is a comparison.
"""

from bisect import bisect_left
from itertools import accumulate
from typing import NamedTuple

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from ..tables.scores import KEYS
from .spark_columns import is_tie_up_to, number, ranking_value
from .syntax_tree import Best, Datacomp, Quantile
from .table_statistics import Cutoff, TableStatistics, is_scored, refuse_duplicates, tie_order

COLLECTED_ROWS = 100_000
"""A bracket of at most this many rows is collected to the driver, as (value, count)."""

_QUANTILE_ACCURACY = 10_000
_BUCKET_BITS = 16  # leading bits of the hash that make the buckets of the histogram of ties


class _Kth(NamedTuple):
    value: float
    above: int  # rows with a larger value
    ties: int


def find_cutoff(scores: DataFrame, best: Best, statistics: TableStatistics) -> Cutoff:
    """Where ``best`` ends on these rows, exactly. Runs a few Spark jobs; collects no rows."""
    values = ranking_value(best, statistics).alias("value")
    rows = scores.where(is_scored()).select(values, *tie_order())
    rows = rows.where(F.col("value").isNotNull())
    scored, lowest, highest = _summary(rows)
    taken = best.rows_of(scored)
    if taken == 0:
        return Cutoff(scored, 0, None)
    kth = kth_largest(rows.select("value"), taken, scored, lowest, highest)
    ties_taken = taken - kth.above
    last_tie = None
    if ties_taken < kth.ties:
        last_tie = _nth_tie(rows.where(F.col("value") == kth.value).drop("value"), ties_taken)
    value = kth.value if best.direction == "top" else 0.0 - kth.value  # no negative zero
    return Cutoff(scored, taken, value, kth.ties, ties_taken, last_tie)


def find_threshold(scores: DataFrame, rule: Datacomp, statistics: TableStatistics) -> Cutoff:
    """DataComp's threshold: `-np.sort(-x)[int(len(x) * share)]` over all scored rows.

    Rows without a value count in the length and come last, as NaN does there; if the index falls on
    one of them, nothing passes.
    """
    rows = scores.where(is_scored()).select(ranking_value(rule, statistics).alias("value"))
    all_rows = rows.count()
    rows = rows.where(F.col("value").isNotNull())
    scored, lowest, highest = _summary(rows)
    index = rule.descending_index(all_rows)
    if index >= scored:
        return Cutoff(scored, 0, None)
    kth = kth_largest(rows, index + 1, scored, lowest, highest)
    return Cutoff(scored, kth.above + kth.ties, kth.value, kth.ties, kth.ties)


def find_quantile(
    scores: DataFrame, quantile: Quantile, statistics: TableStatistics
) -> float | None:
    """The least value that a share of all values does not exceed, exactly; None without values."""
    value = number(quantile.part, statistics)
    value = F.when(value == 0, F.lit(0.0)).otherwise(value)
    rows = scores.where(is_scored()).select(value.alias("value"))
    rows = rows.where(F.col("value").isNotNull())
    values, lowest, highest = _summary(rows)
    if values == 0:
        return None
    descending_rank = values - quantile.ascending_rank(values) + 1
    return kth_largest(rows, descending_rank, values, lowest, highest).value


def _summary(rows: DataFrame) -> Row:
    (summary,) = rows.agg(F.count("*"), F.min("value"), F.max("value")).collect()
    return summary


def kth_largest(values: DataFrame, k: int, rows: int, low: float, high: float) -> _Kth:
    """The k-th largest (1-based) of ``rows`` values that lie between ``low`` and ``high``.

    Each round counts exactly on which side of two approximate quantiles the result lies. Bad
    quantiles cause more rounds, but never a different result.
    """
    column = F.col("value")
    above = 0  # rows above ``high``; ``rows`` is how many there are from ``low`` to ``high``
    while rows > COLLECTED_ROWS and low < high:
        pivots = _pivots(values.where(column.between(low, high)), 1 - (k - above) / rows)
        reached = [F.count_if(column >= pivot) for pivot in pivots]
        exceeded = [F.count_if(column > pivot) for pivot in pivots]
        (counts,) = values.agg(*reached, *exceeded).collect()
        at_least = {low: above + rows, **dict(zip(pivots, counts[: len(pivots)], strict=True))}
        over = {high: above, **dict(zip(pivots, counts[len(pivots) :], strict=True))}
        before = (low, high)
        low = max(bound for bound, count in at_least.items() if count >= k)
        high = min(bound for bound, count in over.items() if count < k)
        above, rows = over[high], at_least[low] - over[high]
        if (low, high) == before:
            break  # few values with many ties: their histogram is small
    counted = values.where(column.between(low, high)).groupBy("value").count().collect()
    for value, ties in sorted(map(tuple, counted), reverse=True):
        if above + ties >= k:
            return _Kth(value, above, ties)
        above += ties
    raise RuntimeError(f"the table changed while it was read: it no longer has {k} values")


def _pivots(values: DataFrame, share: float) -> list[float]:
    """One or two values: those just below and just above the quantile ``share``."""
    margin = 3 / _QUANTILE_ACCURACY
    shares = [max(0.0, share - margin), min(1.0, share + margin)]
    (row,) = values.agg(F.percentile_approx("value", shares, _QUANTILE_ACCURACY)).collect()
    return sorted(set(row[0]))


def _nth_tie(ties: DataFrame, n: int) -> Row:
    """The n-th (1-based) of the ties, ordered by hash and key."""
    bucket = F.shiftright("hash", 64 - _BUCKET_BITS)
    counts = sorted(map(tuple, ties.groupBy(bucket).count().collect()))
    ends = list(accumulate(count for _, count in counts))
    nth_bucket, count = counts[bisect_left(ends, n)]
    n_in_bucket = n - (ends[bisect_left(ends, n)] - count)
    in_order = ties.where(bucket == nth_bucket).orderBy("hash", *KEYS)
    (last,) = in_order.offset(n_in_bucket - 1).limit(1).collect()
    refuse_duplicates(ties.where(is_tie_up_to(last)).count() - n, last["uid"])
    return last
