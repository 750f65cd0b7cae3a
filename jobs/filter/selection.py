"""The selection table: its columns, and what is counted of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from udfs.core.metrics import METRICS

from ..rules.rule import Repetition, Rule, signals
from ..rules.syntax_tree import Best, Signal
from ..rules.table_statistics import Answers
from ..tables import delta
from ..tables.scores import KEYS, SCORES_TABLE

REPETITIONS = delta.described(
    "repetitions", T.IntegerType(), "how often the pair is in the training set: 0 where not kept"
)
_COMMENTS = {field.name: field.metadata["comment"] for field in SCORES_TABLE} | {
    "keep": "whether the pair is kept",
    "repetitions": REPETITIONS.metadata["comment"],
    "first_failed_rule": "first rule that the row failed, status:<status> where it has no scores",
    "reason": "what was missing: why there are no scores, or which signals have no value",
    "rules": "rule -> whether the row passed it",
}
COLUMNS = (
    *(*KEYS, "scorer", "status", "keep", "repetitions"),
    *("first_failed_rule", "reason", "rules", *METRICS),
)
"""The columns of every selection; after them come the other signals that the rules used."""


def signal_columns(rules: Sequence[Rule | Repetition]) -> dict[str, Signal]:
    """The other signals that rules (bound) use, and how the selection calls them.

    As their table does; ``table_column`` where that name is taken, by a column of every selection
    or by a signal that came before.
    """
    named: dict[str, Signal] = {}
    taken = {name.lower() for name in COLUMNS}
    used = signals([tree for rule in rules for tree in rule.trees()])
    for signal in sorted(used, key=lambda each: each.table is not None):  # the scores' own first
        if signal.table is None and signal.name in COLUMNS:
            continue
        short = signal.name.lower() in taken and signal.table
        name = f"{signal.table}_{signal.name}" if short else signal.name
        name = delta.free_name(name, taken)
        taken.add(name.lower())
        named[name] = signal
    return named


def selection_of(judged: DataFrame, rules: Sequence[Rule | Repetition]) -> DataFrame:
    """The columns of a selection table: key, verdict, the four scores, what else the rules used."""
    others = signal_columns(rules)
    comments = dict.fromkeys(others, "a signal that the rules used")
    for field in judged.schema:
        for name, signal in others.items():
            if field.name == signal.column and "comment" in field.metadata:
                comments[name] = field.metadata["comment"]
    columns = [
        F.col(delta.quoted(signal.column or signal.name)).alias(name)
        for name, signal in others.items()
    ]
    selected = delta.storable(judged.select(*COLUMNS, *columns))
    fields = [
        T.StructField(name, T.StringType(), True, {"comment": comment})
        for name, comment in (comments | _COMMENTS).items()
    ]
    return delta.commented(selected, T.StructType(fields))


def count_fates(selection: DataFrame, rules: Sequence[Rule]) -> dict[str, Any]:
    """How many rows there are, are kept, how often, pass each rule, and fail there first."""
    passed = [F.sum(F.col("rules")[rule.name].cast("long")) for rule in rules]
    repetitions = F.sum(F.col("repetitions").cast("long"))
    counted = selection.groupBy("first_failed_rule")
    counts = counted.agg(F.count("*"), repetitions, *passed).collect()
    failed = {fate: rows for fate, rows, *_ in counts}
    rows, kept = sum(failed.values()), failed.get(None, 0)
    prefix = "status:"
    return {
        "rows": rows,
        "kept": kept,
        "kept_fraction": kept / rows if rows else None,
        "repetitions": sum(row[2] for row in counts),
        "without_scores": {
            fate.removeprefix(prefix): n
            for fate, n in sorted(failed.items(), key=str)
            if fate and fate.startswith(prefix)
        },
        "rules": [
            {
                "name": rule.name,
                "rule": str(rule),
                "passed": sum(row[3 + number] for row in counts),
                "failed_first": failed.get(rule.name, 0),
            }
            for number, rule in enumerate(rules)
        ],
    }


def thresholds(rules: Sequence[Rule], answers: Answers) -> list[dict[str, Any]]:
    """Where each best fraction of the rules ended, and what quantiles came to."""
    told: list[dict[str, Any]] = []
    for rule in rules:
        for best in rule.bests():
            each: dict[str, Any] = {"rule": rule.name, "part": str(best), "signal": str(best.value)}
            if best in answers.cuts:
                cut = answers.cuts[best]
                each |= {"scored": cut.scored, "taken": cut.taken, "threshold": cut.value}
                each |= {"ties": cut.ties, "ties_taken": cut.ties_taken}
            elif isinstance(best, Best):
                quota = answers.quotas[best]
                each |= {"scored": quota.scored, "taken": quota.taken, "groups": quota.groups}
            if isinstance(best, Best) and best.at_least:
                each["brought_back"] = answers.minima[best].more
            told.append(each)
    return told


def funnel(summary: Mapping[str, Any], combine: str) -> list[str]:
    """The funnel and the thresholds, a line each, for people."""
    rows, kept = summary["rows"], summary["kept"]
    left = rows - sum(summary["without_scores"].values())
    lines = [("", "passes", "fails first", "left"), ("all rows", "", "", f"{rows:,}")]
    lines += [(f"status:{s}", "", f"{n:,}", "") for s, n in summary["without_scores"].items()]
    lines += [("with scores", "", "", f"{left:,}")]
    for rule in summary["rules"]:
        left -= rule["failed_first"]
        label = rule["rule"] if rule["name"] == rule["rule"] else f"{rule['name']}: {rule['rule']}"
        after = f"{left:,}" if combine == "and" else ""
        lines += [(label, f"{rule['passed']:,}", f"{rule['failed_first']:,}", after)]
    lines += [("kept", "", "", f"{kept:,}")]
    shown = columns_of(lines)
    for cut in summary["thresholds"]:
        shown.append(_threshold(cut))
    fraction = f" ({kept / rows:.2%})" if rows else ""
    repeated = summary["repetitions"]
    times = f", {repeated:,} with repetitions" if repeated != kept else ""
    return [*shown, f"{kept:,} of {rows:,} rows kept{fraction}{times}"]


def columns_of(lines: Sequence[Sequence[str]]) -> list[str]:
    """Lines of equally many cells, the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = []
    for label, *numbers in lines:
        cells = [f"{n:>{w}}" for n, w in zip(numbers, widths[1:], strict=True)]
        shown.append(f"{label:<{widths[0]}}  {'  '.join(cells)}".rstrip())
    return shown


def _threshold(cut: Mapping[str, Any]) -> str:
    share = f"{cut['part']}: {cut['taken']:,} of {cut['scored']:,}"
    if "groups" in cut:
        share += f" in {cut['groups']:,} groups"
    elif cut["taken"]:
        share += f", {'up' if cut['part'].startswith('bottom') else 'down'} to {cut['threshold']}"
        if cut["ties"] > 1:
            share += f" ({cut['ties_taken']:,} of {cut['ties']:,} ties)"
    if cut.get("brought_back"):
        share += f"; {cut['brought_back']:,} more for small groups"
    return share
