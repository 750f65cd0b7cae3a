"""Compares what several rules would keep: counts, overlaps, and rows by exact combination.

One pass over the table counts the rows of each combination (a region of a Venn diagram); the other
figures are sums of these counts.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from ..rules.apply import holds
from ..rules.rule import Rule
from ..rules.table_statistics import TableStatistics, is_scored
from .funnel import aligned_lines

MAX_REGIONS = 20  # to print


def regions(frame: DataFrame, rules: Sequence[Rule], statistics: TableStatistics) -> dict[int, int]:
    """Count the scored rows of each combination of rules passed. One Spark job.

    Returns:
        combination -> rows. Bit n of a combination is set if rule n passes. Combinations without
        rows are left out.
    """
    combination = F.lit(0)
    for number, rule in enumerate(rules):
        passes = holds(rule.condition, statistics).cast("int")
        combination = combination + passes * F.lit(1 << number)
    scored = frame.where(is_scored()).select(combination.alias("combination"))
    return {row[0]: row[1] for row in scored.groupBy("combination").count().collect()}


def compare(rules: Sequence[Rule], counts: Mapping[int, int]) -> dict[str, Any]:
    """Rows by rule, overlaps of each two rules, and regions, from the counts of :func:`regions`."""

    def rows_with(mask: int) -> int:
        return sum(rows for bits, rows in counts.items() if bits & mask == mask)

    scored = sum(counts.values())
    passed = [rows_with(1 << number) for number in range(len(rules))]
    pairs = []
    for i, j in combinations(range(len(rules)), 2):
        both = rows_with(1 << i | 1 << j)
        either = passed[i] + passed[j] - both
        pair = {"rules": [rules[i].name, rules[j].name], "both": both, "either": either}
        pairs.append(pair | {"jaccard": both / either if either else None})
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return {
        "scored": scored,
        "rules": [
            {
                "name": rule.name,
                "rule": str(rule),
                "passed": n,
                "fraction": n / scored if scored else None,
            }
            for rule, n in zip(rules, passed, strict=True)
        ],
        "pairs": pairs,
        "regions": [
            {"rules": [r.name for i, r in enumerate(rules) if bits >> i & 1], "rows": rows}
            for bits, rows in ordered
        ],
    }


def report_lines(comparison: Mapping[str, Any]) -> list[str]:
    """A comparison as text tables: lines to print."""
    scored = comparison["scored"]
    rule_rows = [("rule", "passes", "of scored")]
    for rule in comparison["rules"]:
        label = rule["rule"] if rule["name"] == rule["rule"] else f"{rule['name']}: {rule['rule']}"
        rule_rows += [(label, f"{rule['passed']:,}", _percentage(rule["fraction"]))]
    lines = aligned_lines([*rule_rows, ("with scores", f"{scored:,}", "")])
    if comparison["pairs"]:
        pair_rows = [("two rules", "both", "either", "Jaccard")]
        for pair in comparison["pairs"]:
            jaccard = "" if pair["jaccard"] is None else f"{pair['jaccard']:.3f}"
            label = " and ".join(pair["rules"])
            pair_rows += [(label, f"{pair['both']:,}", f"{pair['either']:,}", jaccard)]
        lines += ["", *aligned_lines(pair_rows)]
    region_rows = [("exactly these rules", "rows")]
    for region in comparison["regions"][:MAX_REGIONS]:
        region_rows += [(" and ".join(region["rules"]) or "(none)", f"{region['rows']:,}")]
    lines += ["", *aligned_lines(region_rows)]
    more = len(comparison["regions"]) - MAX_REGIONS
    return lines + ([f"and {more:,} more combinations (in the JSON)"] if more > 0 else [])


def _percentage(fraction: float | None) -> str:
    return "" if fraction is None else f"{fraction:.2%}"
