"""What rules mean on a scores table: syntax tree -> columns and DataFrames.

- A row takes part where its status says that it was scored. Every other row fails every rule.
- A signal is compared as a double; float32 values are widened exactly, so that a stored 66 is 66.0,
  and a stored 66.1 is 66.0999985... .
- A signal that is null or NaN is not known, and what is made of it is not known either, as in SQL:
  ``a OR b`` holds where a holds, whatever b is; ``NOT a`` of what is not known is not known. A rule
  that is not known to hold fails: what is not known is never kept. ``x is null`` asks.
- ``top p% of x`` takes exactly floor(N * p / 100) rows of the N that take part and have a value of
  x, whatever the other rules say: the order of rules does not matter. Highest first; ties by
  xxhash64(uid), then uid, then the rest of the key. The result depends on the rows alone.
- ``per g`` does so in each group by g, null being a group as any other; ``at least n per g`` takes
  the best of the rest until the group has n rows, or all that have a value.
- ``rank(x)`` is the share of those N rows that are worse: ``rank(x) >= 0.7`` is ``top 30% of x``.
- ``quantile(x, q)`` is the least value v of x such that a share q of those N rows have x <= v.
- ``datacomp p% of x`` keeps x >= the value at rank int(N * p / 100) of the falling order, where N
  counts the rows without a value too, and they come last.

The parts that depend on other rows are answered first (:func:`answer`, Spark actions); judging is
then a matter of each row alone.
"""

from collections.abc import Sequence
from functools import reduce
from operator import and_, or_
from typing import Literal

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from .group_quotas import Ends, minimum_ends, quota_ends
from .ranks import with_rank
from .rule import Repetition, Rule, global_parts
from .spark_columns import column, number, truth
from .syntax_tree import Best, Datacomp, IsNull, Node, Quantile, Rank, Signal
from .table_statistics import Answers, takes_part
from .thresholds import find_cut, find_quantile, find_threshold

MOST_REPETITIONS = 10_000


def answer(
    scores: DataFrame, rules: Sequence[Rule | Repetition], unjoined: DataFrame | None = None
) -> tuple[DataFrame, Answers]:
    """Answer each part that depends on other rows. Runs a few Spark jobs for each.

    ``unjoined`` are the same rows before other tables were joined to them. What needs none of these
    is answered there: each pass over ``scores`` would join anew.

    Returns:
        ``scores``, maybe with further columns whose names begin with `__`, and the answers. Call
        their ``release()`` when all is done.
    """
    answers, frame, ends = Answers(), scores, list[Ends]()
    try:
        for part in global_parts([tree for rule in rules for tree in rule.trees()]):
            rows = frame if unjoined is None or _needs_more(part) else unjoined
            match part:
                case Quantile():
                    answers.quantiles[part] = find_quantile(rows, part, answers)
                case Datacomp():
                    answers.cuts[part] = find_threshold(rows, part, answers)
                case Rank():
                    name = f"__rank_{len(answers.ranks)}"
                    frame = with_rank(frame, part, answers, name)
                    answers.ranks[part] = name
                case Best():
                    ends += _find_best(rows, part, answers)
    except BaseException:
        answers.release()
        raise
    for end in ends:
        frame = end.join(frame)
    return frame, answers


def _needs_more(part: Node) -> bool:
    """Whether a part uses another table's column, or a rank, which is a column made on the way."""
    return any(
        isinstance(node, Rank) or (isinstance(node, Signal) and node.table is not None)
        for node in part.walk()
    )


def _find_best(frame: DataFrame, best: Best, answers: Answers) -> list[Ends]:
    """Answer a best fraction; returns what is to be joined before it can be judged."""
    if not best.per:
        answers.cuts[best] = find_cut(frame, best, answers)
        ends = []
    else:
        ends = [quota_ends(frame, best, answers, f"__quota_{len(answers.quotas)}")]
        answers.quotas[best] = ends[0].quota
        frame = ends[0].join(frame)
    if best.at_least:
        ends.append(minimum_ends(frame, best, answers, f"__minimum_{len(answers.minima)}"))
        answers.minima[best] = ends[-1].quota
    return ends


def holds(condition: Node, answers: Answers) -> Column:
    """True or false, never null: whether a row takes part and is known to meet a condition."""
    return takes_part() & F.coalesce(truth(condition, answers), F.lit(False))


def judge(
    frame: DataFrame,
    rules: Sequence[Rule],
    answers: Answers,
    combine: Literal["and", "or"] = "and",
    repetitions: Sequence[Repetition] = (),
) -> DataFrame:
    """``frame`` with `keep`, `repetitions`, `first_failed_rule`, `reason` and `rules`.

    `rules` says of each rule by its name whether the row passed it.

    `first_failed_rule` is null on a kept row, ``status:<status>`` on a row without scores.
    `reason` says what was missing where something was: on a row without scores that row's own
    reason, else what kept the first failed rule from being known.
    """
    columns = {rule.name: f"__truth_{number}" for number, rule in enumerate(rules)}
    known = {name: F.col(column) for name, column in columns.items()}
    with_truth = frame.withColumns({columns[r.name]: truth(r.condition, answers) for r in rules})
    passed = {
        name: takes_part() & F.coalesce(result, F.lit(False)) for name, result in known.items()
    }
    keep = reduce(and_ if combine == "and" else or_, passed.values())
    failed, why = F.when(keep, F.lit(None)), F.when(keep, F.lit(None))
    for rule in rules:
        failed = failed.when(~passed[rule.name], F.lit(rule.name))
        missing = F.when(known[rule.name].isNull(), _without_value(rule))
        why = why.when(~passed[rule.name], missing)
    unscored = F.concat(F.lit("status:"), F.coalesce("status", F.lit("null")))
    entries = [part for name, result in passed.items() for part in (F.lit(name), result)]
    times = F.when(keep, repeated(repetitions, answers)).otherwise(0)
    return with_truth.withColumns(
        {
            "keep": keep,
            "repetitions": times,
            "first_failed_rule": F.when(takes_part(), failed).otherwise(unscored),
            "reason": F.when(takes_part(), why).otherwise(F.col("reason")),
            "rules": F.create_map(*entries),
        }
    ).drop(*columns.values())


def repeated(repetitions: Sequence[Repetition], answers: Answers) -> Column:
    """How often a row would be repeated, were it kept: an int from 1 to MOST_REPETITIONS.

    The largest of the amounts whose condition holds. A fraction is rounded up for that share of the
    uids, by a hash, so that the mean is kept.
    """
    amounts = [F.lit(1.0), F.lit(1.0)]  # Spark's greatest takes two or more, and passes nulls over
    for each in repetitions:
        amount = number(each.amount, answers)
        most = F.lit(float(min(each.at_most or MOST_REPETITIONS, MOST_REPETITIONS)))
        capped = F.when(amount.isNotNull(), F.least(amount, most))
        amounts.append(capped if each.where is None else F.when(truth(each.where, answers), capped))
    largest = F.greatest(*amounts)
    bits = F.shiftrightunsigned(F.xxhash64(F.lit("repetitions"), "uid"), 11)
    drawn = bits.cast("double") / F.lit(float(2**53))  # 0 <= drawn < 1
    whole = F.floor(largest)
    up = (drawn < largest - whole).cast("int")
    return (whole + up).cast("int")


def _without_value(rule: Rule) -> Column:
    """ "no value of odf, su", or where each signal has a value: "no result of itm / su > 1"."""
    needed = dict.fromkeys(_needed(rule.condition))
    names = [F.when(column(signal).isNull(), F.lit(str(signal))) for signal in needed]
    listed = F.concat_ws(", ", *names)
    undefined = F.lit(f"no result of {rule}")
    return F.when(listed != "", F.concat(F.lit("no value of "), listed)).otherwise(undefined)


def _needed(node: Node) -> list[Signal]:
    """The signals that have to have a value: groups may be null, and `is null` asks for it."""
    match node:
        case Signal():
            return [node]
        case IsNull():
            return []
        case Best(value=value):
            return _needed(value)
    return [signal for part in node.parts() for signal in _needed(part)]
