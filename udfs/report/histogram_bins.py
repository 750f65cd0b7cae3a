"""Where a signal is counted: thresholds, the cells between them, and bins made of cells.

Thresholds t_0 < t_1 < ... are multiples of one step. Cell i holds values in [t_i, t_i+1), the last
cell everything from its threshold up. Counts by cell add up exactly, to how many rows reach a
threshold as well as to the bins of a histogram.
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

_WHOLE_SCALE = (0.0, 100.0)  # of the four metrics
_FEW_ROWS = 2_000  # with fewer rows than this, narrow bins show nothing but chance


@dataclass(frozen=True)
class Grid:
    """Thresholds of one signal, ascending, `step` apart; a single one where all values are one."""

    thresholds: tuple[float, ...]
    step: float


def grid(low: float, high: float, is_metric: bool = False) -> Grid:
    """The grid for values from `low` to `high`, both finite; a metric's is 0, 1 ... 100.

    Otherwise the step is 1, 2 or 5 times a power of ten, the first threshold at or below `low`,
    the last at or below `high`.
    """
    if is_metric and _WHOLE_SCALE[0] <= low and high <= _WHOLE_SCALE[1]:
        return Grid(tuple(float(value) for value in range(STEPS + 1)), 1.0)
    if low == high:
        return Grid((low,), 1.0)
    for step in _steps(Fraction(high) - Fraction(low)):
        size = Fraction(step)
        first, last = math.floor(Fraction(low) / size), math.floor(Fraction(high) / size)
        thresholds = tuple(_rounded(number * size) for number in range(first, last + 1))
        # Large values close together: multiples of the step may round to one float.
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


def reaching(cells: Sequence[int]) -> list[int]:
    """How many values are at or above each threshold, from the counts by cell."""
    return list(accumulate(reversed(cells)))[::-1]


@dataclass(frozen=True)
class Bin:
    """One bar of a histogram: values from `low` up to `high`, all of them and those kept."""

    low: float
    high: float
    rows: int
    kept: int


def bins(grid: Grid, cells: Sequence[int], kept: Sequence[int]) -> list[Bin]:
    """About 20 bins, or 50 for many rows; the value at a whole scale's end is in the last one."""
    width = 2 if sum(cells) >= _FEW_ROWS else 5
    count = len(grid.thresholds)
    starts = list(range(0, count, width))
    if len(starts) > 1 and count - starts[-1] == 1 and count == STEPS + 1:
        starts.pop()  # a cell of its own for 100 would look like a gap
    made = []
    for start, end in zip(starts, [*starts[1:], count], strict=True):
        high = grid.thresholds[end] if end < count else grid.thresholds[start] + width * grid.step
        total, chosen = sum(cells[start:end]), sum(kept[start:end])
        made.append(Bin(grid.thresholds[start], high, total, chosen))
    return made
