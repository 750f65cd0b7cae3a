"""How crowded it is around images and captions in a space that they share.

In many dimensions some points are near neighbours of nearly all others (hubs), and by their inner
products too many of their pairs match. Cross-domain similarity local scaling (arXiv 1710.04087,
section 2.3) takes off what each has with those of the other side that are nearest to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from udfs.training.common_space import CommonSpace

NEAREST = 20
ROWS = 1024


@dataclass(frozen=True)
class Crowding:
    """The mean inner product of each image (N,) with the captions nearest to it, and of each
    caption (T,) with the images nearest to it."""

    images: NDArray[np.float32]
    captions: NDArray[np.float32]


def crowding(space: CommonSpace, pairs: Sequence[tuple[int, int]]) -> Crowding:
    """Of all images and captions of a space, among those of the (image, caption) indices `pairs`,
    each once."""
    shown, told = (np.unique(side) for side in zip(*pairs, strict=True))
    return Crowding(
        _nearest(space.images, space.captions[told]),
        _nearest(space.captions, space.images[shown]),
    )


def _nearest(points: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N,) of points (N, R) and others (M, R); of as many as there are, where M < NEAREST."""
    count = min(NEAREST, len(others))
    means = []
    for start in range(0, len(points), ROWS):
        near = points[start : start + ROWS] @ others.T
        means.append(np.partition(near, -count, axis=1)[:, -count:].mean(axis=1))
    return np.concatenate(means)
