"""What layers of the vision tower say of whole images, for two linear towers (`towers.py`).

A language model is given what the projector reads, patch by patch, and may make of it what it can.
Linear towers make nothing of patches but what is done beforehand. Their mean alone misses half:
the class token, which has gathered what is where, how much patches differ, and what is told
earlier, of shapes rather than things, each tell more of whose a caption is (figures in
udfs/starter_adapter/README.md).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from udfs import images
from udfs.training import features
from udfs.training.kept import kept
from udfs.training.student import Student

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

EARLIER = 0.75
"""Share of the layers that the earlier of the two has behind it."""


def looks(folder: Path, student: Student, pictures: Sequence[bytes]) -> list[NDArray[np.float32]]:
    """Five kinds of numbers, each (N, F), of N encoded images as they are: mean and first token
    after three quarters of the layers, then those after all of them, and how far tokens spread
    around that mean.

    The first token is the class token where a tower has one. Kept in `folder`. Raises
    `images.ImageError` for an image that cannot be decoded.
    """
    key = features.key(student, pictures, "looks")
    values = kept(folder / f"looks-{key[:16]}.npy", lambda: _all(student, pictures))
    return list(values.transpose(1, 0, 2))


def _all(student: Student, pictures: Sequence[bytes]) -> NDArray[np.float32]:
    """(N, 5, F) of encoded images."""
    found = []
    fit, began = student.recipe.prompt.image_fit, time.monotonic()
    for start in range(0, len(pictures), features.BATCH):
        shown = [images.decode(each, fit) for each in pictures[start : start + features.BATCH]]
        found.append(_pooled(student, features.pixels(student, shown)).float().cpu().numpy())
        done = start + len(shown)
        if start // features.BATCH % 32 == 31 or done == len(pictures):
            left = (time.monotonic() - began) / done * (len(pictures) - done)
            log.info("looks: %d of %d images, %.0f min left", done, len(pictures), left / 60)
    return np.concatenate(found)


def _pooled(student: Student, pixels: Tensor) -> Tensor:
    """(B, 5, F) of what an image processor made of B images."""
    import torch

    with torch.inference_mode(), student.autocast():
        states = student.core.vision_tower(pixels, output_hidden_states=True).hidden_states
    kinds = []
    for at in (round(EARLIER * (len(states) - 1)), -1):
        # A layer's own state: few coordinates are huge there, and the same for all tokens.
        tokens = torch.nn.functional.layer_norm(states[at].float(), states[at].shape[-1:])
        kinds += [tokens.mean(dim=1), tokens[:, 0]]
    return torch.stack([*kinds, tokens.std(dim=1)], dim=1)
