"""How well scores agree with ratings: correlations with intervals, error, calibration.

    agreement(scores, ratings, groups=uids)                  Pearson, Spearman, Kendall, error
    spearman(scores, ratings)                                just the number

The ranking checks, which need no ratings, are in agreement/ranking.py.

Rows with a missing value (NaN or infinite) are left out and counted. A statistic that does not
exist (too few rows, equal values) is None with a `reason`, never an error or a warning. Results
depend on the seed and the set of rows, not on their order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from udfs.agreement import resampling
from udfs.agreement.resampling import STANDARD, Bootstrap, Estimate, Floats, Ties

MIN_ROWS = 3
"""With fewer rows a correlation means nothing."""

DECILES = 10


@dataclass(frozen=True)
class Decile:
    """A tenth of the rows by score. Equal scores are in one decile, so some are larger or absent.

    Attributes:
        decile: 1 (lowest scores) to 10.
        n: number of rows.
        score, rating: mean score and mean rating.
        lowest, highest: lowest and highest score.
    """

    decile: int
    n: int
    score: float
    rating: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class Agreement:
    """The result of `agreement`.

    Attributes:
        n: rows with both a score and a rating.
        left_out: rows without one of them.
        images: number of images (clusters) among the n rows.
        resamples: number of resamples behind the intervals; 0 if there are none.
        pearson, spearman, kendall: -1..1; Kendall's tau is tau-b.
        error: mean absolute error in points; None if scores are on another scale than ratings.
        calibration: mean score and mean rating by decile of the score.
        reason: why something is missing, or None.
    """

    n: int
    left_out: int
    images: int
    resamples: int = 0
    pearson: Estimate = Estimate()
    spearman: Estimate = Estimate()
    kendall: Estimate = Estimate()
    error: Estimate = Estimate()
    calibration: tuple[Decile, ...] = ()
    reason: str | None = None


@resampling.ignore_overflow
def agreement(
    scores: npt.ArrayLike,
    ratings: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    bootstrap: Bootstrap = STANDARD,
    same_scale: bool = True,
) -> Agreement:
    """Compare scores (n,) with ratings (n,).

    Args:
        scores: one for each row, NaN if there is none.
        ratings: one for each row, NaN if there is none.
        groups: name or number of each row's image; the rows of an image are resampled together.
            None: every row is an image of its own.
        bootstrap: how intervals are made.
        same_scale: whether scores and ratings are on the same scale, so the error has a meaning.
    """
    x, y = resampling.floats(scores), resampling.floats(ratings)
    known = np.isfinite(x) & np.isfinite(y)
    codes, images = resampling.clusters(groups, known, x, y)
    x, y = x[known], y[known]
    order = np.lexsort((y, x, codes))  # float sums depend on the order of rows: use a fixed one
    x, y, codes = x[order], y[order], codes[order]
    n, left_out = len(x), int((~known).sum())
    degenerate = _degenerate_reason(x, y)
    if n < MIN_ROWS:
        return Agreement(n, left_out, images, reason=degenerate)

    def statistics(w: Floats) -> Floats:  # (4, b)
        error = (w * distance).sum(axis=1) / w.sum(axis=1)
        if degenerate:
            return np.stack([*[np.full(len(w), np.nan)] * 3, error])
        pearson = resampling.correlations(w, *scaled)
        spearman = resampling.correlations(w, ties[0].ranks(w), ties[1].ranks(w))
        has_tau = n <= bootstrap.kendall_rows
        tau = resampling.kendalls(w, *ties) if has_tau else np.full(len(w), np.nan)
        return np.stack([pearson, spearman, tau, error])

    distance = np.abs(x - y)
    ties, scaled = (Ties(x), Ties(y)), (resampling.scaled(x), resampling.scaled(y))
    values = [resampling.finite_or_none(v) for v in statistics(np.ones((1, n)))[:, 0]]
    reason = degenerate or resampling.no_interval_reason(images)
    if not degenerate and n > bootstrap.kendall_rows:
        values[2] = kendall(x, y)
        reason = reason or f"no interval of Kendall's tau: over {bootstrap.kendall_rows:,} rows"
    resampled = resampling.resample(statistics, codes, images, bootstrap, 4)
    pearson_, spearman_, kendall_, error_ = (
        resampling.interval(value, row, bootstrap.confidence)
        for value, row in zip(values, resampled, strict=True)
    )
    return Agreement(
        n,
        left_out,
        images,
        resampled.shape[1],
        pearson_,
        spearman_,
        kendall_,
        error_ if same_scale else Estimate(),
        calibration(x, y),
        reason,
    )


@resampling.ignore_overflow
def pearson(scores: npt.ArrayLike, ratings: npt.ArrayLike) -> float | None:
    """Pearson's correlation of the rows that have both, or None where it does not exist."""
    return _correlation(scores, ratings, lambda x, w: resampling.scaled(x))


@resampling.ignore_overflow
def spearman(scores: npt.ArrayLike, ratings: npt.ArrayLike) -> float | None:
    """Spearman's rank correlation of the rows that have both, or None where it does not exist."""
    return _correlation(scores, ratings, lambda x, w: Ties(x).ranks(w))


@resampling.ignore_overflow
def kendall(scores: npt.ArrayLike, ratings: npt.ArrayLike) -> float | None:
    """Kendall's tau-b of the rows that have both, in n log n, or None where it does not exist."""
    from scipy import stats  # takes a second to import

    x, y = _complete_rows(scores, ratings)
    if _degenerate_reason(x, y):
        return None
    # The method only matters for the p-value, which is not used: the others take far longer.
    return resampling.finite_or_none(stats.kendalltau(x, y, method="asymptotic").statistic)


@resampling.ignore_overflow
def calibration(scores: npt.ArrayLike, ratings: npt.ArrayLike) -> tuple[Decile, ...]:
    """Mean score and mean rating by decile of the score, over the rows that have both."""
    x, y = _complete_rows(scores, ratings)
    if not len(x):
        return ()
    ranks = Ties(x).ranks(np.ones((1, len(x))))[0]
    deciles = np.floor(DECILES * (ranks - 0.5) / len(x)).astype(int)
    return tuple(
        Decile(
            int(decile) + 1,
            int(inside.sum()),
            float(x[inside].mean()),
            float(y[inside].mean()),
            float(x[inside].min()),
            float(x[inside].max()),
        )
        for decile in np.unique(deciles)
        for inside in [deciles == decile]
    )


def _correlation(
    scores: npt.ArrayLike, ratings: npt.ArrayLike, values: Callable[[Floats, Floats], Floats]
) -> float | None:
    """The correlation of scores and ratings after `values` (values and weights -> values)."""
    x, y = _complete_rows(scores, ratings)
    if _degenerate_reason(x, y):
        return None
    w = np.ones((1, len(x)))
    return resampling.finite_or_none(resampling.correlations(w, values(x, w), values(y, w))[0])


def _complete_rows(scores: npt.ArrayLike, ratings: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Scores and ratings of the rows that have both."""
    x, y = resampling.floats(scores), resampling.floats(ratings)
    known = np.isfinite(x) & np.isfinite(y)
    return x[known], y[known]


def _degenerate_reason(x: Floats, y: Floats) -> str | None:
    """Why there is no correlation, or None if there is one."""
    if len(x) < MIN_ROWS:
        return f"fewer than {MIN_ROWS} rows have both a score and a rating"
    if x.min() == x.max():
        return "all scores are equal"
    return "all ratings are equal" if y.min() == y.max() else None
