"""How well captions match images, as a dual encoder finds that has not seen them.

Cross-fitting: groups of images are left out in turn, and each image is judged by towers
(`towers.py`) that were trained on the others. Trained on the image itself, they would tell by heart
whose a caption is.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from udfs.training.common_space import CommonSpace
from udfs.training.crowding import Crowding, crowding
from udfs.training.towers import towers

log = logging.getLogger(__name__)

FOLDS = 5


@dataclass(frozen=True)
class DualEncoder:
    """How well captions match images, by spaces each of which was learned without one fold of the
    images: `folds` (N,) is each image's. `crowds` are what each space has of `crowding`, which is
    taken off: there are captions that suit every image, and images that suit every caption."""

    folds: NDArray[np.int64]
    spaces: Sequence[CommonSpace]
    crowds: Sequence[Crowding]

    def __call__(self, images: Sequence[int], texts: Sequence[int]) -> NDArray[np.float32]:
        """(P,) of images and texts by index; the higher, the better."""
        found = []
        for image, text in zip(images, texts, strict=True):
            space = self.spaces[self.folds[image]]
            found.append(2 * space.images[image] @ space.captions[text])
        return np.array(found, dtype=np.float32) - self.crowd(images, texts)

    def crowd(self, images: Sequence[int], texts: Sequence[int]) -> NDArray[np.float32]:
        """(P,) how crowded it is around each image and its text, together."""
        found = []
        for image, text in zip(images, texts, strict=True):
            crowd = self.crowds[self.folds[image]]
            found.append(crowd.images[image] + crowd.captions[text])
        return np.array(found, dtype=np.float32)


def dual_encoder(
    sentences: NDArray[np.float32],
    looks: NDArray[np.float32],
    pairs: Sequence[tuple[int, int]],
    groups: Sequence[str],
) -> DualEncoder:
    """From embeddings (T, E) of captions, features (N, F) of images, the (image, caption) indices
    that match, and each image's group."""
    folds = fold(groups)
    spaces, crowds = [], []
    for left_out in range(folds.max() + 1):
        log.info("dual encoder to imitate: %d of %d", left_out + 1, folds.max() + 1)
        seen = [pair for pair in pairs if folds[pair[0]] != left_out]
        spaces.append(towers(sentences, looks, seen, groups))
        crowds.append(crowding(spaces[-1], seen))
    return DualEncoder(folds, spaces, crowds)


def fold(groups: Sequence[str], count: int = FOLDS) -> NDArray[np.int64]:
    """Each image's fold (N,): groups stay whole and folds about even; where all images are of one
    group, they are dealt out."""
    sizes = Counter(groups)
    if len(sizes) == 1:
        return np.arange(len(groups)) % count
    filled = [0] * min(count, len(sizes))
    chosen = {}
    for group, size in sorted(sizes.items(), key=lambda each: (-each[1], each[0])):
        chosen[group] = int(np.argmin(filled))
        filled[chosen[group]] += size
    return np.array([chosen[group] for group in groups])
