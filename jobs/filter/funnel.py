"""The funnel of a selection: how many rows each rule took, and where best fractions ended."""

from collections.abc import Mapping, Sequence
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from ..rules.rule import Rule
from ..rules.syntax_tree import Best
from ..rules.table_statistics import Answers


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
