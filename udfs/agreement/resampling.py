"""Bootstrap intervals by cluster, with statistics of many resamples at once.

A resample draws as many clusters (images) as there are, with replacement, and takes all rows of
each: captions of one image are not independent, and an interval that ignored this would be too
narrow. A resample is a vector of weights (how often each row was drawn), so no rows are copied or
sorted again: b resamples of n rows are one array W (b, n), and a row of ones is the data itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.intp]

ignore_overflow = np.errstate(over="ignore", invalid="ignore")
"""Decorates statistics: sums of numbers near 1e308 become NaN without a warning."""

_CELLS_AT_ONCE = 2_000_000  # resamples x rows in memory at a time: 16 MB an array
_MIN_RESAMPLES = 100  # however many rows there are
_BLOCK = 512  # columns of the matrix of signs that are computed at a time
_ZERO_VARIANCE = 1e-24  # a variance below this, of values scaled to 1, is a rounding error


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made.

    Attributes:
        resamples: how many; 0 for no intervals.
        confidence: share of the resamples within an interval, 0..1.
        seed: the same seed gives the same intervals, whatever the order of the rows.
        cells: maximum of resamples times rows; many rows get fewer resamples, but at least 100.
        kendall_rows: with more rows Kendall's tau gets no interval: each resample takes n * n time.
    """

    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0
    cells: int = 200_000_000
    kendall_rows: int = 5000

    def resamples_of(self, rows: int) -> int:
        """The number of resamples for this number of rows."""
        return min(self.resamples, max(_MIN_RESAMPLES, self.cells // max(1, rows)))


STANDARD = Bootstrap()


@dataclass(frozen=True)
class Estimate:
    """A statistic and its interval; each is None if it does not exist."""

    value: float | None = None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.value is None:
            return "-"
        if self.low is None or self.high is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def clusters(
    groups: npt.ArrayLike | None, known: npt.NDArray[np.bool_], *values: npt.NDArray[np.generic]
) -> tuple[Codes, int]:
    """Number the clusters of the `known` rows by the sorted names in `groups`. Without groups each
    row is a cluster of its own, numbered by its `values`; the order of the rows never matters."""
    if groups is None:
        order = np.lexsort([column[known] for column in reversed(values)])
        return np.argsort(order, kind="stable"), len(order)
    names, codes = np.unique(np.asarray(groups)[known], return_inverse=True)
    return codes, len(names)


def weights(codes: Codes, count: int, bootstrap: Bootstrap) -> Iterator[Floats]:
    """Resamples as arrays (b, n), a few at a time: how often each row was drawn.

    None for a single cluster, which says nothing about the variation between clusters.
    """
    total = bootstrap.resamples_of(len(codes)) if count > 1 else 0
    random = np.random.default_rng(bootstrap.seed)
    at_once = max(1, _CELLS_AT_ONCE // max(1, len(codes)))
    for done in range(0, total, at_once):
        b = min(at_once, total - done)
        draws = random.integers(0, count, size=(b, count)) + count * np.arange(b)[:, None]
        counts = np.bincount(draws.ravel(), minlength=b * count).reshape(b, count)
        yield counts[:, codes].astype(np.float64)


def resample(
    statistics: Callable[[Floats], Floats],
    codes: Codes,
    images: int,
    bootstrap: Bootstrap,
    rows: int,
) -> Floats:
    """The `statistics` (that many `rows`) of each resample: (rows, resamples)."""
    values = [statistics(w) for w in weights(codes, images, bootstrap)]
    return np.concatenate([np.empty((rows, 0)), *values], axis=1)


def interval(value: float | None, resampled: Floats, confidence: float) -> Estimate:
    """The percentile interval around `value` from its resampled values (b,).

    Resamples in which the statistic does not exist (NaN) are left out; if that is more than half of
    them, there is no interval.
    """
    known = resampled[np.isfinite(resampled)]
    if value is None or not len(known) or 2 * len(known) < len(resampled):
        return Estimate(value)
    tail = (1 - confidence) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return Estimate(value, float(low), float(high))


class Ties:
    """Values (n,), sorted once, to get ranks and tie counts for any weights of the rows."""

    def __init__(self, values: Floats) -> None:
        self.values = values
        self._order = np.argsort(values, kind="stable")
        ordered = values[self._order]
        first = np.ones(len(values), dtype=bool)
        first[1:] = ordered[1:] != ordered[:-1]
        self._starts = np.flatnonzero(first)
        self._distinct_index = np.empty(len(values), dtype=np.intp)
        self._distinct_index[self._order] = np.cumsum(first) - 1

    def counts(self, w: Floats) -> Floats:
        """How often each distinct value occurs in each resample, in ascending order: (b, u)."""
        counts: Floats = np.add.reduceat(w[:, self._order], self._starts, axis=1)
        return counts

    def ranks(self, w: Floats) -> Floats:
        """The rank of each row's value in each resample, with mean ranks for ties: (b, n)."""
        counts = self.counts(w)
        ranks: Floats = (np.cumsum(counts, axis=1) - (counts - 1) / 2)[:, self._distinct_index]
        return ranks


def scaled(values: Floats) -> Floats:
    """Values with mean 0 and standard deviation 1, without overflow; zeros if all are equal."""
    largest = float(np.abs(values).max(initial=0))
    if largest == 0 or values.min() == values.max():
        return np.zeros_like(values)
    unit = values / largest
    centred = unit - unit.mean()
    deviation = float(centred.std())
    return centred / deviation if deviation else np.zeros_like(values)


def correlations(w: Floats, x: Floats, y: Floats) -> Floats:
    """Pearson's r in each resample (b,) of scaled values or ranks, (n,) or (b, n); NaN if one side
    has only equal values."""
    total = w.sum(axis=1, keepdims=True)
    dx = x - (w * x).sum(axis=1, keepdims=True) / total
    dy = y - (w * y).sum(axis=1, keepdims=True) / total
    wx = w * dx
    xx, xy = (wx * dx).sum(axis=1), (wx * dy).sum(axis=1)
    yy = (w * dy * dy).sum(axis=1)
    degenerate = (xx <= _ZERO_VARIANCE * total[:, 0]) | (yy <= _ZERO_VARIANCE * total[:, 0])
    root = np.sqrt(np.where(degenerate, 1.0, xx)) * np.sqrt(np.where(degenerate, 1.0, yy))
    return np.where(degenerate, np.nan, np.clip(xy / root, -1.0, 1.0))


def kendalls(w: Floats, x: Ties, y: Ties) -> Floats:
    """Kendall's tau-b in each resample (b,); NaN if one side has only equal values.

    The concordant minus the discordant pairs are w' A w / 2, where A holds the signs of
    (x_i - x_j) * (y_i - y_j), computed a block of columns at a time. These are integers in single
    precision: exact below 16 million rows.
    """
    w32, rows = w.astype(np.float32), w.shape[1]
    score = np.zeros(len(w))
    for start in range(0, rows, _BLOCK):
        block = slice(start, min(rows, start + _BLOCK))
        signs = np.sign(x.values[:, None] - x.values[None, block]).astype(np.float32)
        signs *= np.sign(y.values[:, None] - y.values[None, block]).astype(np.float32)
        score += ((w32 @ signs).astype(np.float64) * w[:, block]).sum(axis=1)
    total = w.sum(axis=1)
    untied = [total * total - (ties.counts(w) ** 2).sum(axis=1) for ties in (x, y)]
    degenerate = (untied[0] <= 0) | (untied[1] <= 0)
    x_untied, y_untied = (np.where(degenerate, 1.0, pairs) for pairs in untied)
    root = np.sqrt(x_untied) * np.sqrt(y_untied)
    return np.where(degenerate, np.nan, np.clip(score / root, -1.0, 1.0))


def no_interval_reason(images: int) -> str | None:
    """Why there is no interval, or None if there is one."""
    return "no intervals: all rows are of one image" if images == 1 else None


def floats(values: npt.ArrayLike) -> Floats:
    """Values as an array of floats; None becomes NaN."""
    return np.asarray(values, dtype=np.float64)


def finite_or_none(value: float) -> float | None:
    """The value, or None for NaN and infinity."""
    return float(value) if np.isfinite(value) else None
