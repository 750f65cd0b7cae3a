"""Where best fractions and quantiles lie, found exactly without ranking the table.

:func:`kth_largest` brackets the k-th value between approximate quantiles, counts exactly, and
repeats until so few distinct values are left that they fit in the driver; only ties at that value
that cannot all be taken are then ordered, by the histogram of their hashes. A cut is a handful of
constants: applying it is a comparison.
"""

from bisect import bisect_left
from itertools import accumulate
from typing import NamedTuple

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from ..tables.scores import KEYS
from .spark_columns import height, number, up_to
from .syntax_tree import Best, Datacomp, Quantile
from .table_statistics import Answers, Cut, refuse_twins, takes_part, tie_order

COLLECTED_ROWS = 100_000
"""A bracket of at most so many rows is collected, as (value, count), to the driver."""

_QUANTILE_ACCURACY = 10_000
_BUCKET_BITS = 16  # leading bits of the hash that the histogram of ties counts by


class _Kth(NamedTuple):
    value: float
    above: int  # rows with a larger value
    ties: int


def find_cut(scores: DataFrame, best: Best, answers: Answers) -> Cut:
    """Where ``best`` ends on these rows, exactly. Runs a few Spark jobs; collects no rows."""
    rows = scores.where(takes_part()).select(height(best, answers).alias("height"), *tie_order())
    rows = rows.where(F.col("height").isNotNull())
    scored, lowest, highest = _summary(rows)
    taken = best.rows_of(scored)
    if taken == 0:
        return Cut(scored, 0, None)
    kth = kth_largest(rows.select("height"), taken, scored, lowest, highest)
    ties_taken = taken - kth.above
    last_tie = None
    if ties_taken < kth.ties:
        last_tie = _nth_tie(rows.where(F.col("height") == kth.value).drop("height"), ties_taken)
    value = kth.value if best.direction == "top" else 0.0 - kth.value  # no negative zero
    return Cut(scored, taken, value, kth.ties, ties_taken, last_tie)


def find_threshold(scores: DataFrame, rule: Datacomp, answers: Answers) -> Cut:
    """DataComp's threshold: `-np.sort(-x)[int(len(x) * share)]`, of all rows that take part.

    Rows without a value count in the length and stand at the end, as NaN does there; where the rank
    falls on one of them, nothing passes.
    """
    rows = scores.where(takes_part()).select(height(rule, answers).alias("height"))
    everything = rows.count()
    rows = rows.where(F.col("height").isNotNull())
    scored, lowest, highest = _summary(rows)
    rank = rule.rank_of(everything)
    if rank >= scored:
        return Cut(scored, 0, None)
    kth = kth_largest(rows, rank + 1, scored, lowest, highest)
    return Cut(scored, kth.above + kth.ties, kth.value, kth.ties, kth.ties)


def find_quantile(scores: DataFrame, quantile: Quantile, answers: Answers) -> float | None:
    """The least value that a share of all values reaches, exactly; None without values."""
    value = number(quantile.part, answers)
    value = F.when(value == 0, F.lit(0.0)).otherwise(value)
    rows = scores.where(takes_part()).select(value.alias("height"))
    rows = rows.where(F.col("height").isNotNull())
    values, lowest, highest = _summary(rows)
    if values == 0:
        return None
    from_the_top = values - quantile.place(values) + 1
    return kth_largest(rows, from_the_top, values, lowest, highest).value


def _summary(rows: DataFrame) -> Row:
    (summary,) = rows.agg(F.count("*"), F.min("height"), F.max("height")).collect()
    return summary


def kth_largest(heights: DataFrame, k: int, rows: int, low: float, high: float) -> _Kth:
    """The k-th largest (1-based) of ``rows`` heights that lie between ``low`` and ``high``.

    Each round counts exactly on which side of two approximate quantiles the answer lies. Were the
    quantiles bad, there would be more rounds, not another answer.
    """
    h = F.col("height")
    above = 0  # rows over ``high``; ``rows`` is how many there are from ``low`` to ``high``
    while rows > COLLECTED_ROWS and low < high:
        pivots = _around(heights.where(h.between(low, high)), 1 - (k - above) / rows)
        reached = [F.count_if(h >= pivot) for pivot in pivots]
        exceeded = [F.count_if(h > pivot) for pivot in pivots]
        (counts,) = heights.agg(*reached, *exceeded).collect()
        at_least = {low: above + rows, **dict(zip(pivots, counts[: len(pivots)], strict=True))}
        over = {high: above, **dict(zip(pivots, counts[len(pivots) :], strict=True))}
        before = (low, high)
        low = max(edge for edge, count in at_least.items() if count >= k)
        high = min(edge for edge, count in over.items() if count < k)
        above, rows = over[high], at_least[low] - over[high]
        if (low, high) == before:
            break  # few values with many ties: their histogram is small
    counted = heights.where(h.between(low, high)).groupBy("height").count().collect()
    for value, ties in sorted(map(tuple, counted), reverse=True):
        if above + ties >= k:
            return _Kth(value, above, ties)
        above += ties
    raise RuntimeError(f"the table changed while it was read: it had {k} values, and has not")


def _around(heights: DataFrame, share: float) -> list[float]:
    """Values close below and above the quantile ``share``, each once."""
    margin = 3 / _QUANTILE_ACCURACY
    shares = [max(0.0, share - margin), min(1.0, share + margin)]
    (row,) = heights.agg(F.percentile_approx("height", shares, _QUANTILE_ACCURACY)).collect()
    return sorted(set(row[0]))


def _nth_tie(ties: DataFrame, n: int) -> Row:
    """The n-th (1-based) of the ties by hash and key."""
    bucket = F.shiftright("hash", 64 - _BUCKET_BITS)
    counts = sorted(map(tuple, ties.groupBy(bucket).count().collect()))
    ends = list(accumulate(count for _, count in counts))
    nth_bucket, count = counts[bisect_left(ends, n)]
    n_in_bucket = n - (ends[bisect_left(ends, n)] - count)
    in_order = ties.where(bucket == nth_bucket).orderBy("hash", *KEYS)
    (last,) = in_order.offset(n_in_bucket - 1).limit(1).collect()
    refuse_twins(ties.where(up_to(last)).count() - n, last["uid"])
    return last
