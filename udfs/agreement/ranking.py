"""Whether scores put the better captions above the worse ones: two checks that need no ratings.

    auc(scores, matched, mismatched, groups=uids)        does it tell two sets of captions apart?
    pairs_won(scores, true, altered, groups=uids)        is the true caption of an image on top?

Rows without a score (NaN or infinite) are left out and counted; what does not exist is None with a
`reason`. Results depend on the seed and the set of rows, not on their order.
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
    """What `auc` and `pairs_won` find: `share` is 0..1, with 0.5 for chance.

    Attributes:
        first, second: rows on either side that have a score (`pairs_won`: and a counterpart).
        left_out: rows without a score (`pairs_won`: or without a counterpart).
        images: clusters among those rows.
        resamples: behind the interval; 0 where there is none.
        share: how often the first side is above the second, ties counting half.
        reason: why it is missing, or None.
    """

    first: int
    second: int
    left_out: int
    images: int
    resamples: int = 0
    share: Estimate = Estimate()
    reason: str | None = None


@resampling.quiet
def auc(
    scores: npt.ArrayLike,
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    bootstrap: Bootstrap = STANDARD,
) -> Ranking:
    """How likely a row of the first set scores above one of the second: the area under the curve.

    Args:
        scores: one a row (n,), NaN where there is none.
        first, second: which rows are in either set (n,), booleans.
        groups: each row's image, as for `agreement`.
        bootstrap: how the interval is made.
    """
    x, one, two, codes, images, left_out = _sides(scores, first, second, groups)
    sides = int(one.sum()), int(two.sum())
    if not all(sides):
        return Ranking(*sides, left_out, images, reason="one of the two sets has no scores")
    ties = Ties(x)

    def statistics(w: Floats) -> Floats:  # (1, b)
        above, below = ties.counts(w * one), ties.counts(w * two)
        won = (above * (np.cumsum(below, axis=1) - below / 2)).sum(axis=1)
        pairs = above.sum(axis=1) * below.sum(axis=1)
        return np.where(pairs > 0, won / np.where(pairs > 0, pairs, 1), np.nan)[None]

    return _ranking(statistics, (*sides, left_out, images), codes, bootstrap)


@resampling.quiet
def pairs_won(
    scores: npt.ArrayLike,
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    groups: npt.ArrayLike,
    bootstrap: Bootstrap = STANDARD,
) -> Ranking:
    """The share of images whose row of the first set scores above its row of the second.

    With several rows of an image in a set, the image counts by the share of its pairs that are won.
    The arguments are those of `auc`; `groups` says which rows are of one image.
    """
    x, one, two, codes, images, left_out = _sides(scores, first, second, groups)
    have = [np.bincount(codes, weights=side, minlength=images) for side in (one, two)]
    complete = (have[0] > 0) & (have[1] > 0)
    inside = complete[codes]
    sides = int(one[inside].sum()), int(two[inside].sum())
    left_out += int((~inside).sum())
    if not complete.any():
        return Ranking(*sides, left_out, 0, reason="no image has scores in both sets")
    x, one, two, codes = x[inside], one[inside], two[inside], codes[inside]
    # As for the area under the curve, image by image: rows sorted by image, then by score.
    names, codes = np.unique(codes, return_inverse=True)
    order = np.lexsort((x, codes))
    x, one, two, codes = x[order], one[order], two[order], codes[order]
    new = np.ones(len(x), dtype=bool)
    new[1:] = (x[1:] != x[:-1]) | (codes[1:] != codes[:-1])
    starts = np.flatnonzero(new)  # of runs of equal scores within an image
    of_run = codes[starts]
    above, equal = np.add.reduceat(one, starts), np.add.reduceat(two, starts)
    images = len(names)
    before = np.concatenate([[0], np.cumsum(np.bincount(of_run, weights=equal))[:-1]])
    below = np.cumsum(equal) - equal - before[of_run]
    won = np.bincount(of_run, weights=above * (below + equal / 2))
    share = won / (np.bincount(codes, weights=one) * np.bincount(codes, weights=two))

    def statistics(w: Floats) -> Floats:  # (1, b)
        mean: Floats = (w * share).sum(axis=1) / w.sum(axis=1)
        return mean[None]

    return _ranking(statistics, (*sides, left_out, images), np.arange(images), bootstrap)


def _ranking(
    statistics: Callable[[Floats], Floats],
    counted: tuple[int, int, int, int],
    codes: Codes,
    bootstrap: Bootstrap,
) -> Ranking:
    images = counted[3]
    value = resampling.number(statistics(np.ones((1, len(codes))))[0, 0])
    resampled = resampling.resample(statistics, codes, images, bootstrap, 1)
    share = resampling.interval(value, resampled[0], bootstrap.confidence)
    return Ranking(*counted, resampled.shape[1], share, resampling.few_images(images))


def _sides(
    scores: npt.ArrayLike,
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    groups: npt.ArrayLike | None,
) -> tuple[Floats, Floats, Floats, Codes, int, int]:
    """Scores, membership (0 or 1) and clusters of the rows in either set, and how many lack one."""
    x = resampling.floats(scores)
    one, two = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    known = (one | two) & np.isfinite(x)
    left_out = int(((one | two) & ~np.isfinite(x)).sum())
    codes, images = resampling.clusters(groups, known, x, one)
    x, one, two = x[known], one[known], two[known]
    return x, one.astype(np.float64), two.astype(np.float64), codes, images, left_out
