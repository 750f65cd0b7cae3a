"""Finds where the rows that pass a rule end and those that fail it begin, from a selection."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import Row


@dataclass(frozen=True)
class RuleBoundary:
    """The boundary between the rows that pass a rule and those that fail it, along one signal."""

    rule: str
    signal: str
    ascending: bool  # passing rows have the higher values
    exact: bool  # no failing row has a value beyond that of a passing one


def boundary_of(
    rule: str, rules: Sequence[str], groups: Sequence[Row], signals: Sequence[str]
) -> RuleBoundary | None:
    """The signal that best separates the rows that pass a rule from those that fail it.

    If the rule uses one signal, that one separates them exactly. Otherwise it is the signal whose
    means of passing and failing rows are farthest apart, relative to its range. The text of the
    rule is not needed, so a rule may have any name. None if all rows pass, or none.
    """
    index = rules.index(rule)
    scored = [group for group in groups if group["scored"]]
    best: tuple[float, RuleBoundary] | None = None
    for name in signals:
        passing = [g for g in scored if g["verdicts"][index] and g[f"finite:{name}"]]
        failing = [g for g in scored if not g["verdicts"][index] and g[f"finite:{name}"]]
        if not passing or not failing:
            continue
        lows = [min(g[f"low:{name}"] for g in side) for side in (passing, failing)]
        highs = [max(g[f"high:{name}"] for g in side) for side in (passing, failing)]
        means = [
            sum(g[f"sum:{name}"] for g in side) / sum(g[f"finite:{name}"] for g in side)
            for side in (passing, failing)
        ]
        exact = lows[0] >= highs[1] or highs[0] <= lows[1]
        span = max(highs) - min(lows)
        distance = abs(means[0] - means[1]) / span if 0 < span < math.inf else 0.0
        boundary = RuleBoundary(rule, name, means[0] >= means[1], exact and span > 0)
        weight = distance + (2 if boundary.exact else 0)
        if best is None or weight > best[0]:
            best = weight, boundary
    return best[1] if best else None
