"""What rules would keep, side by side: counts, overlaps, and rows by their exact combination.

All of it comes from one pass over the table, which counts the rows of each combination (a region of
a Venn diagram); the rest is sums of these.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from ..rules.apply import holds
from ..rules.rule import Rule
from ..rules.table_statistics import Answers, takes_part
from .funnel import columns_of

SHOWN_REGIONS = 20


def regions(frame: DataFrame, rules: Sequence[Rule], answers: Answers) -> dict[int, int]:
    """How many scored rows pass just these rules and no others. One Spark job.

    Returns:
        rows by combination: bit n is set where rule n passes. Combinations without rows are absent.
    """
    combination = F.lit(0)
    for number, rule in enumerate(rules):
        passes = holds(rule.condition, answers).cast("int")
        combination = combination + passes * F.lit(1 << number)
    scored = frame.where(takes_part()).select(combination.alias("combination"))
    return {row[0]: row[1] for row in scored.groupBy("combination").count().collect()}


def compared(rules: Sequence[Rule], found: Mapping[int, int]) -> dict[str, Any]:
    """Counts of each rule, overlaps of each two, and regions, from :func:`regions`' answer."""

    def rows_with(mask: int) -> int:
        return sum(rows for bits, rows in found.items() if bits & mask == mask)

    scored = sum(found.values())
    kept = [rows_with(1 << number) for number in range(len(rules))]
    pairs = []
    for one, other in combinations(range(len(rules)), 2):
        both = rows_with(1 << one | 1 << other)
        either = kept[one] + kept[other] - both
        pair = {"rules": [rules[one].name, rules[other].name], "both": both, "either": either}
        pairs.append(pair | {"jaccard": both / either if either else None})
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    return {
        "scored": scored,
        "rules": [
            {
                "name": rule.name,
                "rule": str(rule),
                "passed": n,
                "fraction": n / scored if scored else None,
            }
            for rule, n in zip(rules, kept, strict=True)
        ],
        "pairs": pairs,
        "regions": [
            {"rules": [r.name for i, r in enumerate(rules) if bits >> i & 1], "rows": rows}
            for bits, rows in ordered
        ],
    }


def told(found: Mapping[str, Any]) -> list[str]:
    """The same for people."""
    scored = found["scored"]
    lines = [("rule", "passes", "of scored")]
    for rule in found["rules"]:
        label = rule["rule"] if rule["name"] == rule["rule"] else f"{rule['name']}: {rule['rule']}"
        lines += [(label, f"{rule['passed']:,}", _share(rule["fraction"]))]
    shown = columns_of([*lines, ("with scores", f"{scored:,}", "")])
    if found["pairs"]:
        rows = [("two rules", "both", "either", "Jaccard")]
        for pair in found["pairs"]:
            jaccard = "" if pair["jaccard"] is None else f"{pair['jaccard']:.3f}"
            label = " and ".join(pair["rules"])
            rows += [(label, f"{pair['both']:,}", f"{pair['either']:,}", jaccard)]
        shown += ["", *columns_of(rows)]
    regions_ = [("just these rules", "rows")]
    for region in found["regions"][:SHOWN_REGIONS]:
        regions_ += [(" and ".join(region["rules"]) or "(none)", f"{region['rows']:,}")]
    shown += ["", *columns_of(regions_)]
    more = len(found["regions"]) - SHOWN_REGIONS
    return shown + ([f"and {more:,} more combinations (in the JSON)"] if more > 0 else [])


def _share(fraction: float | None) -> str:
    return "" if fraction is None else f"{fraction:.2%}"
