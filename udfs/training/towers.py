"""A dual encoder of two linear towers over embeddings that are given, trained by contrast.

InfoNCE (arXiv 1807.03748), as CLIP has it (arXiv 2103.00020): of a batch's captions and images each
is to find its own. A few thousand pairs are soon learned by heart, so the towers are linear and
decay fast, and `TOWERS` of them, each from another start, speak as one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch  # noqa: TID253 - as in objective.py
from numpy.typing import NDArray
from torch import Tensor, nn  # noqa: TID253

from udfs.training import losses, sampling
from udfs.training.common_space import CommonSpace

TOWERS = 3
COORDINATES = 128
EPOCHS = 40
AT_LEAST = 600  # steps, where there are few pairs
BATCH = 256
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 2.0
DROPOUT = 0.3
LOG_SCALE = 2.5  # at the start; of the cosines, learned


class Towers(nn.Module):
    """Captions (T, E) and images (N, F) to unit vectors (., COORDINATES)."""

    def __init__(self, told: int, seen: int) -> None:
        super().__init__()
        self.captions = nn.Sequential(nn.Dropout(DROPOUT), nn.Linear(told, COORDINATES))
        self.images = nn.Sequential(nn.Dropout(DROPOUT), nn.Linear(seen, COORDINATES))
        self.log_scale = nn.Parameter(torch.tensor(LOG_SCALE))

    def forward(self, captions: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """Unit vectors of captions and of images."""
        told, seen = self.captions(captions), self.images(images)
        return nn.functional.normalize(told, dim=-1), nn.functional.normalize(seen, dim=-1)

    def loss(self, captions: Tensor, images: Tensor) -> Tensor:
        """Of pairs that match, row by row."""
        told, seen = self(captions, images)
        return losses.info_nce(seen @ told.T * self.log_scale.exp())


def towers(
    sentences: NDArray[np.float32],
    looks: NDArray[np.float32],
    pairs: Sequence[tuple[int, int]],
    groups: Sequence[str],
) -> CommonSpace:
    """From embeddings (T, E) of captions, mean features (N, F) of images, the (image, caption)
    indices that match, and each image's group: coordinates whose inner products are the mean cosine
    over the towers. Depends on nothing else."""
    shown, told = (torch.tensor(side) for side in zip(*pairs, strict=True))
    captions, images = _scaled(sentences, told), _scaled(looks, shown)
    own: dict[int, list[int]] = {}
    for image, caption in pairs:
        own.setdefault(image, []).append(caption)
    found = [_trained(captions, images, own, groups, start) for start in range(TOWERS)]
    a, b = (torch.cat(side, dim=1) / TOWERS**0.5 for side in zip(*found, strict=True))
    return CommonSpace(a.numpy(), b.numpy())


def joined(kinds: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Several kinds of embeddings of the same things side by side, each (N, .), as deviations from
    their mean and with a mean square of 1, so that none drowns another."""
    every = torch.arange(len(kinds[0]))
    found: NDArray[np.float32] = torch.cat([_scaled(kind, every) for kind in kinds], dim=1).numpy()
    return found


def _scaled(values: NDArray[np.float32], used: Tensor) -> Tensor:
    """As deviations from the mean of those used, of which a coordinate's mean square is 1."""
    found = torch.from_numpy(values.astype(np.float32))
    found = found - found[used].mean(dim=0)
    return found / found[used].square().mean().sqrt().clamp_min(1e-9)


def _trained(
    captions: Tensor,
    images: Tensor,
    own: dict[int, list[int]],
    groups: Sequence[str],
    start: int,
) -> tuple[Tensor, Tensor]:
    """What towers that were trained from this start make of all captions and images."""
    draw = sampling.rng("towers", start)
    shown = sorted(own)
    batches = -(-len(shown) // BATCH)
    epochs = max(EPOCHS, -(-AT_LEAST // batches))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(start)
        model = Towers(captions.shape[1], images.shape[1])
        optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, LEARNING_RATE, total_steps=epochs * batches, pct_start=0.1
        )
        for epoch in range(epochs):
            for rows in np.array_split(_order(shown, groups, epoch, draw), batches):
                told = [own[row][draw.integers(len(own[row]))] for row in rows]
                optimizer.zero_grad()
                model.loss(captions[told], images[rows]).backward()
                optimizer.step()
                schedule.step()
    model.eval()
    with torch.inference_mode():
        found: tuple[Tensor, Tensor] = model(captions, images)
    return found


def _order(
    images: Sequence[int], groups: Sequence[str], epoch: int, draw: np.random.Generator
) -> NDArray[np.int64]:
    """The images of an epoch: in every other one group by group, so that a batch has rivals of the
    same group, which are hard to tell apart."""
    order = draw.permutation(images)
    if epoch % 2:
        place = {group: at for at, group in enumerate(draw.permutation(sorted(set(groups))))}
        order = np.array(sorted(order, key=lambda image: place[groups[image]]))
    return order
