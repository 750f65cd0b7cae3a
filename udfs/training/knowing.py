"""Losses over captions of which something is known without a teacher: their order, and about which
scores a teacher would give them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch  # noqa: TID253 - as in objective.py
from numpy.typing import NDArray

from udfs.metrics import CTQ, ITM, METRICS, ODF
from udfs.training import asking, losses
from udfs.training.inputs import Inputs
from udfs.training.reads import Reads
from udfs.training.recipe import Stage
from udfs.training.sampling import Ranked
from udfs.training.tree import TokenTree

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Told:
    """Images with their captions as trees, and what is known of the numbers to be read there, by
    their index in `reads`."""

    images: list[int] = field(default_factory=list)
    trees: list[TokenTree] = field(default_factory=list)
    reads: Reads = field(default_factory=Reads)
    pairs: list[tuple[int, str]] = field(default_factory=list)
    """Those whose four scores are assumed, as they come in `reads`, ..."""
    facts: NDArray[np.float64] | None = None
    """... what is known of them (`Assumed.facts`), ..."""
    assumed: NDArray[np.float64] | None = None
    """... and the scores (P, 4) themselves."""
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
    if told.pairs:
        told.facts = inputs.assumed[stage.assumed_by].facts(told.pairs)
    return told


def assume(inputs: Inputs, told: Told, stage: Stage) -> None:
    """Add the scores that are assumed; a sentence encoder may read the captions for that."""
    if told.facts is not None:
        told.assumed = inputs.assumed[stage.assumed_by].scores(told.pairs, told.facts)


def known(inputs: Inputs, told: Told, stage: Stage, turn: int) -> dict[str, Tensor]:
    """`rank` and `assume`, as far as the stage has them."""
    student = inputs.student
    images = inputs.images(told.images, stage, turn)
    if not told.reads.rows:
        # Nothing is known, but processes that train together all need a gradient.
        nothing = 0 * images.sum()
        return {name: nothing for name in ("rank", "assume") if getattr(stage.weights, name)}
    hidden = student.hidden(told.trees, images)
    found: dict[str, Tensor] = {}
    odds, read = asking.odds_of(inputs, hidden, told.reads, stage)
    if stage.weights.rank:
        found["rank"] = _rank(odds, told)
    if stage.weights.assume:
        assert told.assumed is not None  # `assume` was called
        scores = torch.from_numpy(told.assumed).flatten().to(odds)
        spread, distance = inputs.recipe.soft_target, inputs.recipe.distance
        head, numbers = student.lm_head.weight, student.template.tree
        found["assume"] = (
            losses.begun_loss(read, head, numbers, scores, spread, distance)
            if stage.sampled_numbers
            else losses.score_loss(read, scores, spread, distance)
        )
    return found


def _tell(inputs: Inputs, image: Ranked, stage: Stage, told: Told) -> None:
    """Hang an image's captions below it, with the questions that the stage has use for."""
    tree, last = inputs.student.with_image()
    row = len(told.trees)
    told.images.append(image.image)
    told.trees.append(tree)

    def put(text: str, *metrics: int) -> list[int]:
        tip = inputs.tell(tree, last, text, stage)
        if stage.weights.assume:
            told.pairs.append((image.image, text))
        read = {}
        for m in range(len(METRICS)) if stage.weights.assume else metrics:
            read[m] = told.reads.number(row, inputs.ask(tree, tip, m, stage))
        return [read[m] for m in metrics]

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
