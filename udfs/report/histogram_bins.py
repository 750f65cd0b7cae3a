"""Thresholds at which a signal is counted, the cells between them, and histogram bins of cells.

Thresholds t_0 < t_1 < ... are multiples of one step. Cell i holds the values in [t_i, t_i+1), the
last cell all values from its threshold up. Counts by cell add up exactly, both to the number of
rows at or above a threshold and to the bins of a histogram.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from itertools import accumulate

STEPS = 100
"""A grid has at most two thresholds more than this."""

_METRIC_RANGE = (0.0, 100.0)
_FEW_ROWS = 2_000  # with fewer rows, narrow bins would show only noise


@dataclass(frozen=True)
class Grid:
    """Thresholds of one signal, ascending, `step` apart; only one if all values are equal."""

    thresholds: tuple[float, ...]
    step: float


def grid(low: float, high: float, is_metric: bool = False) -> Grid:
    """The grid for values from `low` to `high`, both finite; a metric's is 0, 1 ... 100.

    Otherwise the step is 1, 2 or 5 times a power of ten, the first threshold at or below `low`,
    the last at or below `high`.
    """
    if is_metric and _METRIC_RANGE[0] <= low and high <= _METRIC_RANGE[1]:
        return Grid(tuple(float(value) for value in range(STEPS + 1)), 1.0)
    if low == high:
        return Grid((low,), 1.0)
    for step in _steps(Fraction(high) - Fraction(low)):
        size = Fraction(step)
        first, last = math.floor(Fraction(low) / size), math.floor(Fraction(high) / size)
        thresholds = tuple(_rounded(number * size) for number in range(first, last + 1))
        # For large values close together, several multiples of the step may round to one float.
        if len(set(thresholds)) == len(thresholds) and thresholds[0] <= low:
            return Grid(thresholds, float(step))
    return Grid((low,), 1.0)


def _rounded(value: Fraction) -> float:
    largest = Fraction(sys.float_info.max)
    return float(max(-largest, min(value, largest)))


def _steps(span: Fraction) -> list[Decimal]:
    """1, 2 or 5 times a power of ten, at least a hundredth of `span`, then coarser ones."""
    power = math.floor(math.log10(span.numerator) - math.log10(span.denominator)) - 4
    digits = [Decimal(digit).scaleb(power + more) for more in range(12) for digit in (1, 2, 5)]
    return [step for step in digits if Fraction(step) * STEPS >= span]


def at_or_above(cells: Sequence[int]) -> list[int]:
    """How many values are at or above each threshold, from the counts by cell."""
    return list(accumulate(reversed(cells)))[::-1]


@dataclass(frozen=True)
class Bin:
    """One bar of a histogram: rows with values from `low` up to `high`, and how many are kept."""

    low: float
    high: float
    rows: int
    kept: int


def bins(grid: Grid, cells: Sequence[int], kept_cells: Sequence[int]) -> list[Bin]:
    """About 20 bins, or 50 for many rows; a metric's value of 100 is in the last one."""
    width = 2 if sum(cells) >= _FEW_ROWS else 5
    count = len(grid.thresholds)
    starts = list(range(0, count, width))
    if len(starts) > 1 and count - starts[-1] == 1 and count == STEPS + 1:
        starts.pop()  # a separate bin for 100 would look like a gap
    histogram = []
    for start, end in zip(starts, [*starts[1:], count], strict=True):
        high = grid.thresholds[end] if end < count else grid.thresholds[start] + width * grid.step
        rows, kept = sum(cells[start:end]), sum(kept_cells[start:end])
        histogram.append(Bin(grid.thresholds[start], high, rows, kept))
    return histogram
