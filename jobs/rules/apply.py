"""What rules mean on a scores table: syntax tree -> columns and DataFrames.

- Only scored rows, by their status, can pass. Every other row fails every rule.
- A signal is compared as a double. float32 values are widened exactly, so a stored 66 is 66.0, and
  a stored 66.1 is 66.0999985... .
- A signal that is null or NaN is unknown, and so is whatever is computed from it, as in SQL:
  ``a OR b`` is true where a is true, whatever b is; ``NOT a`` is unknown where a is. A row fails a
  rule whose result is unknown, so unknown rows are never kept. ``x is null`` tests for it.
- ``top p% of x`` takes exactly floor(N * p / 100) of the N scored rows that have a value of x,
  whatever the other rules say: the order of rules does not matter. Highest first; ties by
  xxhash64(uid), then uid, then the rest of the key. The result depends on the rows alone.
- ``per g`` does so in each group of g; null is a group like any other. ``at least n per g`` then
  takes the best of the other rows until the group has n rows, or all that have a value.
- ``rank(x)`` is the share of those N rows that are worse: ``rank(x) >= 0.7`` is ``top 30% of x``.
- ``quantile(x, q)`` is the least value v of x such that a share q of those N rows have x <= v.
- ``datacomp p% of x`` keeps x >= the value at index int(N * p / 100) in descending order, where N
  also counts the rows without a value, which come last.

The parts that depend on other rows are computed first (:func:`compute_statistics`, which runs Spark
jobs); after that, each row is judged on its own.
"""

from collections.abc import Sequence
from functools import reduce
from operator import and_, or_
from typing import Literal

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from .group_quotas import GroupCutoffs, minimum_cutoffs, quota_cutoffs
from .ranks import with_rank
from .rule import Repetition, Rule, global_parts
from .spark_columns import column, number, truth
from .syntax_tree import Best, Datacomp, IsNull, Node, Quantile, Rank, Signal
from .table_statistics import TableStatistics, is_scored
from .thresholds import find_cutoff, find_quantile, find_threshold

MAX_REPETITIONS = 10_000


def compute_statistics(
    scores: DataFrame, rules: Sequence[Rule | Repetition], unjoined: DataFrame | None = None
) -> tuple[DataFrame, TableStatistics]:
    """Compute each part that depends on other rows. Runs a few Spark jobs for each.

    ``unjoined`` holds the same rows before other tables were joined to them. Parts that need none
    of those tables are computed there, since each pass over ``scores`` would repeat the join.

    Returns:
        ``scores``, possibly with further columns whose names begin with `__`, and the statistics.
        Call their ``release()`` when you are done.
    """
    statistics, frame, cutoffs = TableStatistics(), scores, list[GroupCutoffs]()
    try:
        for part in global_parts([tree for rule in rules for tree in rule.trees()]):
            rows = frame if unjoined is None or _needs_join(part) else unjoined
            match part:
                case Quantile():
                    statistics.quantiles[part] = find_quantile(rows, part, statistics)
                case Datacomp():
                    statistics.cutoffs[part] = find_threshold(rows, part, statistics)
                case Rank():
                    name = f"__rank_{len(statistics.ranks)}"
                    frame = with_rank(frame, part, statistics, name)
                    statistics.ranks[part] = name
                case Best():
                    cutoffs += _find_best(rows, part, statistics)
    except BaseException:
        statistics.release()
        raise
    for cutoff in cutoffs:
        frame = cutoff.join(frame)
    return frame, statistics


def _needs_join(part: Node) -> bool:
    """Whether a part uses a joined table's column, or a rank, which is a column added by now."""
    return any(
        isinstance(node, Rank) or (isinstance(node, Signal) and node.table is not None)
        for node in part.walk()
    )


def _find_best(frame: DataFrame, best: Best, statistics: TableStatistics) -> list[GroupCutoffs]:
    """Compute a best fraction; returns the cutoffs to join before rows can be judged by it."""
    if not best.per:
        statistics.cutoffs[best] = find_cutoff(frame, best, statistics)
        cutoffs = []
    else:
        cutoffs = [quota_cutoffs(frame, best, statistics, f"__quota_{len(statistics.quotas)}")]
        statistics.quotas[best] = cutoffs[0].quota
        frame = cutoffs[0].join(frame)
    if best.at_least:
        cutoffs.append(
            minimum_cutoffs(frame, best, statistics, f"__minimum_{len(statistics.minima)}")
        )
        statistics.minima[best] = cutoffs[-1].quota
    return cutoffs


def holds(condition: Node, statistics: TableStatistics) -> Column:
    """True or false, never null: whether a row is scored and is known to meet a condition."""
    return is_scored() & F.coalesce(truth(condition, statistics), F.lit(False))


def judge(
    frame: DataFrame,
    rules: Sequence[Rule],
    statistics: TableStatistics,
    combine: Literal["and", "or"] = "and",
    repetitions: Sequence[Repetition] = (),
) -> DataFrame:
    """``frame`` with `keep`, `repetitions`, `first_failed_rule`, `reason` and `rules`.

    `rules` maps each rule's name to whether the row passed it. `first_failed_rule` is null on a
    kept row, ``status:<status>`` on a row without scores. `reason` says what was missing, if
    anything: on a row without scores its own reason, else why the first failed rule was undecided.
    """
    columns = {rule.name: f"__truth_{number}" for number, rule in enumerate(rules)}
    results = {name: F.col(column) for name, column in columns.items()}
    with_results = frame.withColumns(
        {columns[r.name]: truth(r.condition, statistics) for r in rules}
    )
    passed = {
        name: is_scored() & F.coalesce(result, F.lit(False)) for name, result in results.items()
    }
    keep = reduce(and_ if combine == "and" else or_, passed.values())
    first_failed, reason = F.when(keep, F.lit(None)), F.when(keep, F.lit(None))
    for rule in rules:
        first_failed = first_failed.when(~passed[rule.name], F.lit(rule.name))
        undecided = F.when(results[rule.name].isNull(), _reason_undecided(rule))
        reason = reason.when(~passed[rule.name], undecided)
    unscored = F.concat(F.lit("status:"), F.coalesce("status", F.lit("null")))
    entries = [part for name, result in passed.items() for part in (F.lit(name), result)]
    count = F.when(keep, repetition_count(repetitions, statistics)).otherwise(0)
    return with_results.withColumns(
        {
            "keep": keep,
            "repetitions": count,
            "first_failed_rule": F.when(is_scored(), first_failed).otherwise(unscored),
            "reason": F.when(is_scored(), reason).otherwise(F.col("reason")),
            "rules": F.create_map(*entries),
        }
    ).drop(*columns.values())


def repetition_count(repetitions: Sequence[Repetition], statistics: TableStatistics) -> Column:
    """How often a row is repeated if it is kept: an int from 1 to MAX_REPETITIONS.

    The largest of the amounts whose condition holds. An amount of 2.3 becomes 3 for 30% of the
    uids, chosen by a hash, and 2 for the others, so that the mean stays 2.3.
    """
    amounts = [F.lit(1.0), F.lit(1.0)]  # Spark's greatest takes two or more, and ignores nulls
    for each in repetitions:
        amount = number(each.amount, statistics)
        most = F.lit(float(min(each.at_most or MAX_REPETITIONS, MAX_REPETITIONS)))
        capped = F.when(amount.isNotNull(), F.least(amount, most))
        amounts.append(
            capped if each.where is None else F.when(truth(each.where, statistics), capped)
        )
    largest = F.greatest(*amounts)
    bits = F.shiftrightunsigned(F.xxhash64(F.lit("repetitions"), "uid"), 11)
    uniform = bits.cast("double") / F.lit(float(2**53))  # in [0, 1)
    whole = F.floor(largest)
    round_up = (uniform < largest - whole).cast("int")
    return (whole + round_up).cast("int")


def _reason_undecided(rule: Rule) -> Column:
    """ "no value of odf, su", or if every signal has a value: "no result of itm / su > 1"."""
    signals = dict.fromkeys(_needed_signals(rule.condition))
    missing = [F.when(column(signal).isNull(), F.lit(str(signal))) for signal in signals]
    listed = F.concat_ws(", ", *missing)
    undefined = F.lit(f"no result of {rule}")
    return F.when(listed != "", F.concat(F.lit("no value of "), listed)).otherwise(undefined)


def _needed_signals(node: Node) -> list[Signal]:
    """The signals that must have a value: neither groups nor operands of `is null` need one."""
    match node:
        case Signal():
            return [node]
        case IsNull():
            return []
        case Best(value=value):
            return _needed_signals(value)
    return [signal for part in node.parts() for signal in _needed_signals(part)]
