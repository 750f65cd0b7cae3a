"""Where a rule's passing rows end and its failing rows begin: found from what a selection says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import Row


@dataclass(frozen=True)
class Line:
    """Where a rule's passing rows end and its failing rows begin, seen along one signal."""

    rule: str
    signal: str
    ascending: bool  # passing rows have the higher values
    exact: bool  # no failing row has a value beyond that of a passing one


def line_of(
    rule: str, rules: Sequence[str], groups: Sequence[Row], signals: Sequence[str]
) -> Line | None:
    """The signal that tells rows passing a rule from failing ones; None where it takes all or none.

    A rule on one signal is told by that exactly. One on several is shown along the signal whose
    means lie farthest apart, in terms of its range. The rule's text need not be known: a label may
    stand in its place.
    """
    number = rules.index(rule)
    scored = [group for group in groups if group["scored"]]
    best: tuple[float, Line] | None = None
    for name in signals:
        passing = [g for g in scored if g["verdicts"][number] and g[f"finite:{name}"]]
        failing = [g for g in scored if not g["verdicts"][number] and g[f"finite:{name}"]]
        if not passing or not failing:
            continue
        lows = [min(g[f"low:{name}"] for g in some) for some in (passing, failing)]
        highs = [max(g[f"high:{name}"] for g in some) for some in (passing, failing)]
        means = [
            sum(g[f"sum:{name}"] for g in some) / sum(g[f"finite:{name}"] for g in some)
            for some in (passing, failing)
        ]
        exact = lows[0] >= highs[1] or highs[0] <= lows[1]
        span = max(highs) - min(lows)
        apart = abs(means[0] - means[1]) / span if 0 < span < math.inf else 0.0
        line = Line(rule, name, means[0] >= means[1], exact and span > 0)
        weight = apart + (2 if line.exact else 0)
        if best is None or weight > best[0]:
            best = weight, line
    return best[1] if best else None
