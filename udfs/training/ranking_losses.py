"""The loss over captions whose order is known without a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch  # noqa: TID253 - as in objective.py

from udfs.core.metrics import CTQ, ITM, ODF
from udfs.training import losses, teacher_losses
from udfs.training.loss_inputs import Inputs
from udfs.training.read_positions import Reads
from udfs.training.recipe import Stage
from udfs.training.sampling import Ranked
from udfs.training.token_tree import TokenTree

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Told:
    """Images with their captions as trees, and what is known of the numbers to be read there, by
    their index in `reads`."""

    images: list[int] = field(default_factory=list)
    trees: list[TokenTree] = field(default_factory=list)
    reads: Reads = field(default_factory=Reads)
    fitting: list[int] = field(default_factory=list)
    """ITM of captions that match, ..."""
    strange: list[int] = field(default_factory=list)
    """... and of those that do not."""
    spoiled: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """By metric: the detail of captions with an altered copy, or the writing of those with a
    garbled one, and that of the copy."""


def tell(inputs: Inputs, ranked: Sequence[Ranked], stage: Stage) -> Told:
    """Lay out images with their captions."""
    told = Told()
    for image in ranked:
        _tell(inputs, image, stage, told)
    return told


def rank(inputs: Inputs, told: Told, stage: Stage, turn: int) -> Tensor:
    """How far the order of the read-out numbers is from the one that is known."""
    images = inputs.images(told.images, stage, turn)
    if not told.reads.rows:
        # Nothing is known, but processes that train together all need a gradient.
        return 0 * images.sum()
    hidden = inputs.student.hidden(told.trees, images)
    return _rank(teacher_losses.odds_of(inputs, hidden, told.reads, stage), told)


def _tell(inputs: Inputs, image: Ranked, stage: Stage, told: Told) -> None:
    """Hang an image's captions below it and ask what is to be ranked."""
    tree, last = inputs.student.with_image()
    row = len(told.trees)
    told.images.append(image.image)
    told.trees.append(tree)

    def put(text: str, *metrics: int) -> list[int]:
        tip = inputs.tell(tree, last, text, stage)
        return [told.reads.number(row, inputs.ask(tree, tip, m, stage)) for m in metrics]

    told.strange.extend(put(text, ITM)[0] for text in image.rivals)
    for text, *copies in zip(image.own, image.altered, image.garbled, strict=True):
        # Cut first: a change beyond the cut would be none.
        own = inputs.encode(text, stage.caption_tokens)
        spoiled = [
            (metric, copy)
            for metric, copy in zip((ODF, CTQ), copies, strict=True)
            if copy and inputs.encode(copy, stage.caption_tokens) not in ([], own)
        ]
        itm, *rest = put(text, ITM, *(metric for metric, _ in spoiled))
        told.fitting.append(itm)
        for (metric, copy), better in zip(spoiled, rest, strict=True):
            told.spoiled.setdefault(metric, []).append((better, put(copy, metric)[0]))


def _rank(odds: Tensor, told: Told) -> Tensor:
    # A caption that matches its image is better than one that does not match another: a score has
    # to rank all pairs, not an image's captions alone.
    parts = []
    if told.strange:
        parts.append(losses.rank_loss(odds[told.fitting][:, None], odds[told.strange]))
    for pairs in told.spoiled.values():
        better, worse = zip(*pairs, strict=True)
        parts.append(losses.rank_loss(odds[list(better)], odds[list(worse)]))
    return torch.stack(parts).mean() if parts else 0 * odds.sum()
