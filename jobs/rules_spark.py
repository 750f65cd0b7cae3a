"""What rules mean on a scores table: syntax tree -> columns and DataFrames.

- A row takes part where its status says that it was scored. Every other row fails every rule.
- A signal is compared as a double; float32 values are widened exactly, so that a stored 66 is 66.0,
  and a stored 66.1 is 66.0999985... .
- A null or NaN in any signal that a rule uses fails that rule, under NOT and OR as well: what is
  not known is never kept. To let one known signal suffice, write two rules and combine them by or.
- ``top p% of m`` takes exactly floor(N * p / 100) rows of the N that take part and have a value of
  m, whatever the other rules say: the order of rules does not matter. Highest first; ties by
  xxhash64(uid), then uid, then the rest of the key. The result depends on the rows alone.

A ``top`` is found without ranking the table. :func:`find_cut` (Spark actions) brackets the k-th
value between approximate quantiles, counts exactly, and repeats until so few distinct values are
left that they fit in the driver; only ties at that value that cannot all be taken are then ordered,
by the histogram of their hashes. The cut is a handful of constants: applying it is a comparison.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate
from operator import and_, eq, ge, gt, le, lt, ne, or_
from typing import Literal, NamedTuple

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from udfs.results import SCORED

from .errors import UsageError
from .rules import AllOf, AnyOf, Best, Comparison, Condition, Not, Rule
from .scores_table import KEYS
from .tables import quoted

_COMPARISONS: dict[str, Callable[[Column, Column], Column]] = {
    ">=": ge,
    ">": gt,
    "<=": le,
    "<": lt,
    "=": eq,
    "!=": ne,
}
COLLECTED_ROWS = 100_000
"""A bracket of at most so many rows is collected, as (value, count), to the driver."""

_QUANTILE_ACCURACY = 10_000
_BUCKET_BITS = 16  # leading bits of the hash that the histogram of ties counts by


@dataclass(frozen=True)
class Cut:
    """Where a ``top`` or ``bottom`` ends: everything beyond ``value`` is in, and some at it."""

    scored: int  # N: rows that take part and have a value
    taken: int  # k, exactly
    value: float | None  # the last value that is taken; None where nothing is taken
    ties: int = 0  # rows at that value
    ties_taken: int = 0
    last_tie: Row | None = None  # hash and KEYS of the last tie taken, where not all are


class _Kth(NamedTuple):
    value: float
    above: int  # rows with a larger value
    ties: int


def takes_part() -> Column:
    """True for rows that carry scores."""
    return F.coalesce(F.col("status").isin(*SCORED), F.lit(False))


def value_of(signal: str) -> Column:
    """The signal as a double, null where it is null or NaN."""
    value = F.col(quoted(signal)).cast("double")
    return F.when(~F.isnan(value), value)


def find_cuts(scores: DataFrame, rules: Sequence[Rule]) -> dict[Best, Cut]:
    """The cut of each ``top`` and ``bottom`` in the rules. Runs a few Spark jobs for each."""
    bests = dict.fromkeys(best for rule in rules for best in rule.bests())
    return {best: find_cut(scores, best) for best in bests}


def find_cut(scores: DataFrame, best: Best) -> Cut:
    """Where ``best`` ends on these rows, exactly. Runs a few Spark jobs; collects no rows."""
    rows = scores.where(takes_part()).select(_height(best).alias("height"), *_tie_order())
    rows = rows.where(F.col("height").isNotNull())
    (summary,) = rows.agg(F.count("*"), F.min("height"), F.max("height")).collect()
    scored, lowest, highest = summary
    taken = best.rows_of(scored)
    if taken == 0:
        return Cut(scored, 0, None)
    kth = _kth_largest(rows.select("height"), taken, scored, lowest, highest)
    ties_taken = taken - kth.above
    last_tie = None
    if ties_taken < kth.ties:
        last_tie = _nth_tie(rows.where(F.col("height") == kth.value).drop("height"), ties_taken)
    value = kth.value if best.direction == "top" else 0.0 - kth.value  # no negative zero
    return Cut(scored, taken, value, kth.ties, ties_taken, last_tie)


def _height(best: Best) -> Column:
    """What ``best`` ranks by, highest first."""
    value = value_of(best.signal.name)
    return value if best.direction == "top" else -value


def _tie_order() -> list[Column]:
    uid, *rest = (F.col(name).cast("string").alias(name) for name in KEYS)
    return [F.xxhash64(uid).alias("hash"), uid, *rest]


def _kth_largest(heights: DataFrame, k: int, rows: int, low: float, high: float) -> _Kth:
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
    for height, ties in sorted(map(tuple, counted), reverse=True):
        if above + ties >= k:
            return _Kth(height, above, ties)
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
    if ties.where(_up_to(last)).count() != n:
        raise UsageError(
            f"the scores table holds the same scored row more than once (uid {last['uid']!r}):"
            " its key is (uid, image_sha, caption_sha, copy) for each scorer"
        )
    return last


def _up_to(last: Row) -> Column:
    """True for ties that come before ``last``, or are it. Null parts of a key come first."""
    key = [F.lit(last[name]).cast("string").alias(name) for name in KEYS]
    return F.struct(*_tie_order()) <= F.struct(F.lit(last["hash"]).alias("hash"), *key)


def _is_best(best: Best, cut: Cut) -> Column:
    if cut.value is None:
        return F.lit(False)
    height = _height(best)
    edge = F.lit(cut.value if best.direction == "top" else -cut.value)
    if cut.last_tie is None:
        return height >= edge
    return (height > edge) | ((height == edge) & _up_to(cut.last_tie))


def _is_true(condition: Condition, cuts: Mapping[Best, Cut]) -> Column:
    match condition:
        case Comparison(signal, comparator, number):
            return _COMPARISONS[comparator](value_of(signal.name), F.lit(number))
        case Best():
            return _is_best(condition, cuts[condition])
        case Not(part):
            return ~_is_true(part, cuts)
        case AllOf(parts):
            return reduce(and_, (_is_true(part, cuts) for part in parts))
        case AnyOf(parts):
            return reduce(or_, (_is_true(part, cuts) for part in parts))


def passes(rule: Rule, cuts: Mapping[Best, Cut]) -> Column:
    """True or false, never null: whether a row of the scores table passes the rule."""
    known = [value_of(signal.name).isNotNull() for signal in rule.signals()]
    return F.when(reduce(and_, known, takes_part()), _is_true(rule.condition, cuts)).otherwise(
        F.lit(False)
    )


def judge(
    scores: DataFrame,
    rules: Sequence[Rule],
    cuts: Mapping[Best, Cut],
    combine: Literal["and", "or"],
) -> DataFrame:
    """``scores`` with ``keep``, ``first_failed_rule``, ``reason`` and ``rules`` (name -> passed).

    ``first_failed_rule`` is null on a kept row, ``status:<status>`` on a row without scores.
    ``reason`` says what was missing where something was: on a row without scores that row's own
    reason, else the signals of the first failed rule that have no value.
    """
    columns = {rule.name: f"__passes_{number}" for number, rule in enumerate(rules)}
    with_results = scores.withColumns({columns[rule.name]: passes(rule, cuts) for rule in rules})
    passed = {name: F.col(result) for name, result in columns.items()}
    keep = reduce(and_ if combine == "and" else or_, passed.values())
    failed, why = F.when(keep, F.lit(None)), F.when(keep, F.lit(None))
    for rule in rules:
        failed = failed.when(~passed[rule.name], F.lit(rule.name))
        why = why.when(~passed[rule.name], _without_value(rule))
    unscored = F.concat(F.lit("status:"), F.coalesce("status", F.lit("null")))
    entries = [part for name, result in passed.items() for part in (F.lit(name), result)]
    return with_results.withColumns(
        {
            "keep": keep,
            "first_failed_rule": F.when(takes_part(), failed).otherwise(unscored),
            "reason": F.when(takes_part(), why).otherwise(F.col("reason")),
            "rules": F.create_map(*entries),
        }
    ).drop(*columns.values())


def _without_value(rule: Rule) -> Column:
    """ "no value of odf, su", or null where each signal of the rule has a value."""
    names = [F.when(value_of(s.name).isNull(), F.lit(s.name)) for s in rule.signals()]
    listed = F.concat_ws(", ", *names)
    return F.when(listed != "", F.concat(F.lit("no value of "), listed))
