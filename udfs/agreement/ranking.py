"""Whether better captions score above worse ones: two checks that need no ratings.

    auc(scores, matched, mismatched, groups=uids)        does it separate two sets of captions?
    pairs_won(scores, true, altered, groups=uids)        does an image's true caption score higher?

Rows without a score (NaN or infinite) are left out and counted. A statistic that does not exist is
None with a `reason`. Results depend on the seed and the set of rows, not on their order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from udfs.agreement import resampling
from udfs.agreement.resampling import STANDARD, Bootstrap, Codes, Estimate, Floats, Ties


@dataclass(frozen=True)
class Ranking:
    """The result of `auc` and `pairs_won`.

    Attributes:
        first, second: rows of each set that have a score (`pairs_won`: and a counterpart).
        left_out: rows without a score (`pairs_won`: or without a counterpart).
        images: number of images (clusters) among the rows with a score.
        resamples: number of resamples behind the interval; 0 if there is none.
        share: how often the first set is above the second, ties counting half: 0..1, by chance 0.5.
        reason: why the share or its interval is missing, or None.
    """

    first: int
    second: int
    left_out: int
    images: int
    resamples: int = 0
    share: Estimate = Estimate()
    reason: str | None = None


@resampling.ignore_overflow
def auc(
    scores: npt.ArrayLike,
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    bootstrap: Bootstrap = STANDARD,
) -> Ranking:
    """The probability that a row of the first set scores above one of the second: the area under
    the ROC curve.

    Args:
        scores: one for each row (n,), NaN if there is none.
        first, second: which rows are in each set (n,), booleans.
        groups: each row's image, as for `agreement`.
        bootstrap: how the interval is made.
    """
    x, in_first, in_second, codes, images, left_out = _scored_sets(scores, first, second, groups)
    sizes = int(in_first.sum()), int(in_second.sum())
    if not all(sizes):
        return Ranking(*sizes, left_out, images, reason="one of the two sets has no scores")
    ties = Ties(x)

    def statistics(w: Floats) -> Floats:  # (1, b)
        above, below = ties.counts(w * in_first), ties.counts(w * in_second)
        won = (above * (np.cumsum(below, axis=1) - below / 2)).sum(axis=1)
        pairs = above.sum(axis=1) * below.sum(axis=1)
        return np.where(pairs > 0, won / np.where(pairs > 0, pairs, 1), np.nan)[None]

    return _ranking(statistics, (*sizes, left_out, images), codes, bootstrap)


@resampling.ignore_overflow
def pairs_won(
    scores: npt.ArrayLike,
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    groups: npt.ArrayLike,
    bootstrap: Bootstrap = STANDARD,
) -> Ranking:
    """The share of images whose row of the first set scores above its row of the second.

    If an image has several rows in a set, it counts with the share of its pairs that are won.
    The arguments are those of `auc`; `groups` says which rows are of one image.
    """
    x, in_first, in_second, codes, images, left_out = _scored_sets(scores, first, second, groups)
    rows_first, rows_second = (
        np.bincount(codes, weights=members, minlength=images) for members in (in_first, in_second)
    )
    complete = (rows_first > 0) & (rows_second > 0)
    used = complete[codes]
    sizes = int(in_first[used].sum()), int(in_second[used].sum())
    left_out += int((~used).sum())
    if not complete.any():
        return Ranking(*sizes, left_out, 0, reason="no image has scores in both sets")
    x, in_first, in_second, codes = x[used], in_first[used], in_second[used], codes[used]
    # As for the area under the curve, image by image: rows sorted by image, then by score.
    names, codes = np.unique(codes, return_inverse=True)
    order = np.lexsort((x, codes))
    x, in_first, in_second, codes = x[order], in_first[order], in_second[order], codes[order]
    is_start = np.ones(len(x), dtype=bool)
    is_start[1:] = (x[1:] != x[:-1]) | (codes[1:] != codes[:-1])
    starts = np.flatnonzero(is_start)  # of runs of equal scores within an image
    run_image = codes[starts]
    above, equal = np.add.reduceat(in_first, starts), np.add.reduceat(in_second, starts)
    images = len(names)
    before = np.concatenate([[0], np.cumsum(np.bincount(run_image, weights=equal))[:-1]])
    below = np.cumsum(equal) - equal - before[run_image]
    won = np.bincount(run_image, weights=above * (below + equal / 2))
    share = won / (np.bincount(codes, weights=in_first) * np.bincount(codes, weights=in_second))

    def statistics(w: Floats) -> Floats:  # (1, b)
        mean: Floats = (w * share).sum(axis=1) / w.sum(axis=1)
        return mean[None]

    return _ranking(statistics, (*sizes, left_out, images), np.arange(images), bootstrap)


def _ranking(
    statistics: Callable[[Floats], Floats],
    counts: tuple[int, int, int, int],
    codes: Codes,
    bootstrap: Bootstrap,
) -> Ranking:
    images = counts[3]
    value = resampling.finite_or_none(statistics(np.ones((1, len(codes))))[0, 0])
    resampled = resampling.resample(statistics, codes, images, bootstrap, 1)
    share = resampling.interval(value, resampled[0], bootstrap.confidence)
    return Ranking(*counts, resampled.shape[1], share, resampling.no_interval_reason(images))


def _scored_sets(
    scores: npt.ArrayLike,
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    groups: npt.ArrayLike | None,
) -> tuple[Floats, Floats, Floats, Codes, int, int]:
    """For the rows with a score in either set: scores, membership of both sets (0 or 1), clusters
    and their number; and the number of rows without a score."""
    x = resampling.floats(scores)
    in_first, in_second = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    member = in_first | in_second
    known = member & np.isfinite(x)
    left_out = int((member & ~np.isfinite(x)).sum())
    codes, images = resampling.clusters(groups, known, x, in_first)
    first_, second_ = (members[known].astype(np.float64) for members in (in_first, in_second))
    return x[known], first_, second_, codes, images, left_out
