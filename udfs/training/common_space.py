"""Coordinates in which captions and images can be compared, in closed form.

Canonical correlation (Hotelling 1936): of all directions in a sentence encoder's embeddings and in
images' mean features those that correlate most over pairs that match. On the two sides of a pair
that does match they say the same, as far as anything linear can tell. A couple of thousand pairs
and a second are enough; two trained towers (`towers.py`) are a little better, and take longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RIDGE = 1.0
"""Of the covariances, in units of their mean variance: thousands of pairs for a thousand dimensions
would be learned by heart otherwise."""


@dataclass(frozen=True)
class CommonSpace:
    """Coordinates (R,) of each caption (T, R) and of each image (N, R): of unit length, then as
    deviations from their means. Inner products say how well caption and image match."""

    captions: NDArray[np.float32]
    images: NDArray[np.float32]


def common_space(
    sentences: NDArray[np.float32],
    features: NDArray[np.float32],
    pairs: Sequence[tuple[int, int]],
    size: int,
) -> CommonSpace:
    """From embeddings (T, E) of captions, mean features (N, F) of images and the (image, caption)
    indices that match: `size` coordinates, fewer where E or F or the pairs have no more."""
    shown, told = (np.array(side) for side in zip(*pairs, strict=True))
    captions = sentences.astype(np.float64) - sentences[told].mean(axis=0, dtype=np.float64)
    images = features.astype(np.float64) - features[shown].mean(axis=0, dtype=np.float64)
    q, k = captions[told], images[shown]
    white_q, white_k = _whitening(q), _whitening(k)
    u, s, v = np.linalg.svd(white_q @ (q.T @ k / len(q)) @ white_k, full_matrices=False)
    root = np.sqrt(s[:size])
    return CommonSpace(
        _centred(captions @ white_q @ u[:, :size] * root),
        _centred(images @ white_k @ v[:size].T * root),
    )


def _whitening(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse square root of the covariance, with the ridge."""
    variances, directions = np.linalg.eigh(values.T @ values / len(values))
    variances = np.maximum(variances, 0)
    variances += RIDGE * variances.mean() + 1e-12
    found: NDArray[np.float64] = (directions / np.sqrt(variances)) @ directions.T
    return found


def _centred(values: NDArray[np.float64]) -> NDArray[np.float32]:
    values = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9)
    found: NDArray[np.float32] = (values - values.mean(axis=0)).astype(np.float32)
    return found
