"""Bootstrap intervals by cluster, and statistics of many resamples at once.

A resample draws as many clusters (the images) as there are, with replacement, and takes all rows of
each: captions of one image are not independent, and an interval that took them for it would be too
narrow. A resample is a vector of weights, how often each row was drawn, so that nothing is copied
or sorted anew: b resamples of n rows are one array W (b, n), and a row of ones is the data itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.intp]

quiet = np.errstate(over="ignore", invalid="ignore")
"""Decorates statistics: sums of numbers near 1e308 have no value, and that is all to say."""

_CELLS_AT_ONCE = 2_000_000  # resamples x rows held at a time: 16 MB an array
_FEWEST = 100  # resamples, however many rows there are
_BLOCK = 512  # columns of the matrix of signs that are made at a time
_FLAT = 1e-24  # a variance below this, of values scaled to 1, is rounding


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made.

    Attributes:
        resamples: how many; 0 for no intervals.
        confidence: share of the resamples within an interval, 0..1.
        seed: the same seed gives the same intervals, whatever the order of the rows.
        cells: resamples times rows at most; with more rows there are fewer resamples, 100 at least.
        kendall_rows: with more rows Kendall's tau gets no interval, as each resample takes n * n.
    """

    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0
    cells: int = 200_000_000
    kendall_rows: int = 5000

    def resamples_of(self, rows: int) -> int:
        """How many resamples of so many rows are made."""
        return min(self.resamples, max(_FEWEST, self.cells // max(1, rows)))


STANDARD = Bootstrap()


@dataclass(frozen=True)
class Estimate:
    """A statistic and its interval; each is None where it does not exist."""

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
    """Number the clusters of the `known` rows: by their names, or without groups each row a cluster
    of its own, numbered by its `values`: never by the order in which rows are given."""
    if groups is None:
        order = np.lexsort([column[known] for column in reversed(values)])
        return np.argsort(order, kind="stable"), len(order)
    names, codes = np.unique(np.asarray(groups)[known], return_inverse=True)
    return codes, len(names)


def weights(codes: Codes, count: int, bootstrap: Bootstrap) -> Iterator[Floats]:
    """Resamples as arrays (b, n), a few at a time: how often each row was drawn.

    There are none for a single cluster, of which nothing can be learnt about others.
    """
    total = bootstrap.resamples_of(len(codes)) if count > 1 else 0
    random = np.random.default_rng(bootstrap.seed)
    at_once = max(1, _CELLS_AT_ONCE // max(1, len(codes)))
    for done in range(0, total, at_once):
        b = min(at_once, total - done)
        drawn = random.integers(0, count, size=(b, count)) + count * np.arange(b)[:, None]
        times = np.bincount(drawn.ravel(), minlength=b * count).reshape(b, count)
        yield times[:, codes].astype(np.float64)


def resample(
    statistics: Callable[[Floats], Floats],
    codes: Codes,
    images: int,
    bootstrap: Bootstrap,
    rows: int,
) -> Floats:
    """What `statistics` gives in each resample: (rows, resamples)."""
    found = [statistics(w) for w in weights(codes, images, bootstrap)]
    return np.concatenate([np.empty((rows, 0)), *found], axis=1)


def interval(value: float | None, resampled: Floats, confidence: float) -> Estimate:
    """The percentile interval around `value` from its resampled values (b,).

    Resamples in which the statistic does not exist (NaN) are left out; where that is most of them,
    there is no interval.
    """
    known = resampled[np.isfinite(resampled)]
    if value is None or not len(known) or 2 * len(known) < len(resampled):
        return Estimate(value)
    tail = (1 - confidence) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return Estimate(value, float(low), float(high))


class Ties:
    """Values (n,) grouped by equality: ranks and tie counts of weighted rows, sorted only once."""

    def __init__(self, values: Floats) -> None:
        self.values = values
        self._order = np.argsort(values, kind="stable")
        ordered = values[self._order]
        first = np.ones(len(values), dtype=bool)
        first[1:] = ordered[1:] != ordered[:-1]
        self._starts = np.flatnonzero(first)
        self._place = np.empty(len(values), dtype=np.intp)
        self._place[self._order] = np.cumsum(first) - 1

    def counts(self, w: Floats) -> Floats:
        """How often each distinct value occurs in each resample, in their order: (b, u)."""
        counted: Floats = np.add.reduceat(w[:, self._order], self._starts, axis=1)
        return counted

    def ranks(self, w: Floats) -> Floats:
        """The rank of each row's value in each resample, ties in their middle: (b, n)."""
        counts = self.counts(w)
        ranks: Floats = (np.cumsum(counts, axis=1) - (counts - 1) / 2)[:, self._place]
        return ranks


def scaled(values: Floats) -> Floats:
    """Values with mean 0 and deviation 1 (of any magnitude, without overflow); zeros if equal."""
    largest = float(np.abs(values).max(initial=0))
    if largest == 0 or values.min() == values.max():
        return np.zeros_like(values)
    unit = values / largest
    centred = unit - unit.mean()
    deviation = float(centred.std())
    return centred / deviation if deviation else np.zeros_like(values)


def correlations(w: Floats, x: Floats, y: Floats) -> Floats:
    """Pearson's r in each resample (b,) of scaled values or ranks, (n,) or (b, n); else NaN."""
    total = w.sum(axis=1, keepdims=True)
    dx = x - (w * x).sum(axis=1, keepdims=True) / total
    dy = y - (w * y).sum(axis=1, keepdims=True) / total
    wx = w * dx
    xx, xy = (wx * dx).sum(axis=1), (wx * dy).sum(axis=1)
    yy = (w * dy * dy).sum(axis=1)
    flat = (xx <= _FLAT * total[:, 0]) | (yy <= _FLAT * total[:, 0])
    root = np.sqrt(np.where(flat, 1.0, xx)) * np.sqrt(np.where(flat, 1.0, yy))
    return np.where(flat, np.nan, np.clip(xy / root, -1.0, 1.0))


def kendalls(w: Floats, x: Ties, y: Ties) -> Floats:
    """Kendall's tau-b in each resample (b,); NaN where one side has equal values only.

    The pairs in order less those out of order are w' A w / 2 with A the signs of (x_i - x_j) *
    (y_i - y_j), made a block of columns at a time. Whole numbers in single precision: exact below
    16 million rows.
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
    flat = (untied[0] <= 0) | (untied[1] <= 0)
    root = np.sqrt(np.where(flat, 1.0, untied[0])) * np.sqrt(np.where(flat, 1.0, untied[1]))
    return np.where(flat, np.nan, np.clip(score / root, -1.0, 1.0))


def few_images(images: int) -> str | None:
    """Why there is no interval."""
    return "no intervals: all rows are of one image" if images == 1 else None


def floats(values: npt.ArrayLike) -> Floats:
    """Values as numbers; None as NaN."""
    return np.asarray(values, dtype=np.float64)


def number(value: float) -> float | None:
    """The value, or None for NaN and infinity."""
    return float(value) if np.isfinite(value) else None
