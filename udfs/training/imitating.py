"""A dual encoder, whose judgement of a match the model imitates.

From a few thousand images a model learns much by heart of which caption is whose: on new books it
ranks no better than two linear towers on sentences and mean features do. The two err in different
places, and their mean is far better than either (figures in udfs/starter_adapter/README.md). So the
model learns from both: whose a caption is (`rank`), and how well a dual encoder that has not seen
the image's group finds them to match (`imitate`). Groups are left out in turn for that
(cross-fitting): trained on the image itself, it would tell by heart as well.

Knowledge distillation (arXiv 1503.02531), by Pearson's correlation over a step's pairs
(arXiv 2205.10536): the order and the distances count, while how sure to be, and how often pairs
match, is learned elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch  # noqa: TID253 - as in objective.py
from numpy.typing import NDArray

from udfs.metrics import ITM
from udfs.training import asking, losses
from udfs.training.inputs import Inputs
from udfs.training.plans import Shown
from udfs.training.reads import Reads
from udfs.training.recipe import Stage
from udfs.training.tree import TokenTree

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Judged:
    """Images with captions behind them as trees, where ITM is read there, and what the dual encoder
    says of each of these pairs, in the same order."""

    images: list[int]
    trees: list[TokenTree]
    reads: Reads
    wanted: NDArray[np.float32]


def judge(inputs: Inputs, shown: Sequence[Shown], stage: Stage) -> Judged:
    """Lay out images with captions, and let the dual encoder judge them."""
    assert inputs.dual_encoder is not None
    trees, reads, images, texts = [], Reads(), list[int](), list[int]()
    for row, (image, captions) in enumerate(shown):
        tree, last = inputs.student.with_image()
        trees.append(tree)
        for text in captions:
            tip = inputs.tell(tree, last, text, stage)
            reads.number(row, inputs.ask(tree, tip, ITM, stage))
            images.append(image)
            texts.append(inputs.text_rows[text])
    wanted = inputs.dual_encoder(images, texts)
    return Judged([image for image, _ in shown], trees, reads, wanted)


def imitate(inputs: Inputs, judged: Judged, stage: Stage, turn: int) -> Tensor:
    """One less the correlation of ITM with what the dual encoder says, over all pairs: of its log
    odds, of its mean, or the mean of both losses (`Stage.imitated_by`)."""
    images = inputs.images(judged.images, stage, turn)
    hidden = inputs.student.hidden(judged.trees, images)
    odds, read = asking.odds_of(inputs, hidden, judged.reads, stage)
    wanted = torch.from_numpy(judged.wanted).to(odds)
    told = {"odds": odds, "mean": asking.means(inputs, read, stage)}
    used = told if stage.imitated_by == "both" else [stage.imitated_by]
    return torch.stack([losses.correlation_loss(told[by], wanted) for by in used]).mean()
