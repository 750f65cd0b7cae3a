"""The funnel of a selection: how many rows each rule removed, and where best fractions end."""

from collections.abc import Mapping, Sequence
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from ..core.progress import number
from ..rules.rule import Rule
from ..rules.syntax_tree import Best
from ..rules.table_statistics import TableStatistics


def count_verdicts(selection: DataFrame, rules: Sequence[Rule]) -> dict[str, Any]:
    """Counts of rows: all, kept, repetitions, without scores, and for each rule."""
    passed = [F.sum(F.col("rules")[rule.name].cast("long")) for rule in rules]
    repetitions = F.sum(F.col("repetitions").cast("long"))
    counted = selection.groupBy("first_failed_rule")
    counts = counted.agg(F.count("*"), repetitions, *passed).collect()
    by_first_failed = {first_failed: rows for first_failed, rows, *_ in counts}
    rows, kept_count = sum(by_first_failed.values()), by_first_failed.get(None, 0)
    prefix = "status:"
    return {
        "rows": rows,
        "kept": kept_count,
        "kept_fraction": kept_count / rows if rows else None,
        "repetitions": sum(row[2] for row in counts),
        "without_scores": {
            first_failed.removeprefix(prefix): n
            for first_failed, n in sorted(by_first_failed.items(), key=str)
            if first_failed and first_failed.startswith(prefix)
        },
        "rules": [
            {
                "name": rule.name,
                "rule": str(rule),
                "passed": sum(row[3 + number] for row in counts),
                "failed_first": by_first_failed.get(rule.name, 0),
            }
            for number, rule in enumerate(rules)
        ],
    }


def thresholds(rules: Sequence[Rule], statistics: TableStatistics) -> list[dict[str, Any]]:
    """Where each best fraction of the rules ends: rows scored and taken, thresholds, groups."""
    parts: list[dict[str, Any]] = []
    for rule in rules:
        for best in rule.bests():
            part: dict[str, Any] = {"rule": rule.name, "part": str(best), "signal": str(best.value)}
            if best in statistics.cutoffs:
                cutoff = statistics.cutoffs[best]
                part |= {"scored": cutoff.scored, "taken": cutoff.taken, "threshold": cutoff.value}
                part |= {"ties": cutoff.ties, "ties_taken": cutoff.ties_taken}
            elif isinstance(best, Best):
                quota = statistics.quotas[best]
                part |= {"scored": quota.scored, "taken": quota.taken, "groups": quota.groups}
            if isinstance(best, Best) and best.at_least:
                part["brought_back"] = statistics.minima[best].added
            parts.append(part)
    return parts


def funnel(summary: Mapping[str, Any], combine: str) -> list[str]:
    """The funnel as a text table, a line for each threshold, and a summary: lines to print."""
    rows, kept_count = summary["rows"], summary["kept"]
    left = rows - sum(summary["without_scores"].values())
    cells = [("", "passes", "fails first", "left"), ("all rows", "", "", f"{rows:,}")]
    cells += [(f"status:{s}", "", f"{n:,}", "") for s, n in summary["without_scores"].items()]
    cells += [("with scores", "", "", f"{left:,}")]
    for rule in summary["rules"]:
        left -= rule["failed_first"]
        label = rule["rule"] if rule["name"] == rule["rule"] else f"{rule['name']}: {rule['rule']}"
        after = f"{left:,}" if combine == "and" else ""
        cells += [(label, f"{rule['passed']:,}", f"{rule['failed_first']:,}", after)]
    cells += [("kept", "", "", f"{kept_count:,}")]
    lines = aligned_lines(cells)
    for cutoff in summary["thresholds"]:
        lines.append(_cutoff_line(cutoff))
    fraction = f" ({kept_count / rows:.2%})" if rows else ""
    samples = summary["repetitions"]
    repeated = f", {samples:,} with repetitions" if samples != kept_count else ""
    return [*lines, f"{kept_count:,} of {rows:,} rows kept{fraction}{repeated}"]


def aligned_lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines of text: the first column left-aligned, the others right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for label, *numbers in rows:
        cells = [f"{n:>{w}}" for n, w in zip(numbers, widths[1:], strict=True)]
        lines.append(f"{label:<{widths[0]}}  {'  '.join(cells)}".rstrip())
    return lines


def _cutoff_line(cutoff: Mapping[str, Any]) -> str:
    line = f"{cutoff['part']}: {cutoff['taken']:,} of {cutoff['scored']:,}"
    if "groups" in cutoff:
        line += f" in {cutoff['groups']:,} groups"
    elif cutoff["taken"]:
        direction = "up" if cutoff["part"].startswith("bottom") else "down"
        threshold = cutoff["threshold"]
        shown = number(threshold) if isinstance(threshold, int | float) else threshold
        line += f", {direction} to {shown}"
        if cutoff["ties"] > 1:
            line += f" ({cutoff['ties_taken']:,} of {cutoff['ties']:,} ties)"
    if cutoff.get("brought_back"):
        line += f"; {cutoff['brought_back']:,} more for small groups"
    return line
