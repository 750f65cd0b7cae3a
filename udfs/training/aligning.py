"""Losses that bring captions, and then images, to one place in the language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch  # noqa: TID253 - as in objective.py

from udfs.training import losses
from udfs.training.features import codes
from udfs.training.inputs import Inputs
from udfs.training.recipe import Stage
from udfs.training.tree import TokenTree

if TYPE_CHECKING:
    from torch import Tensor


def distill(inputs: Inputs, rows: Sequence[int], stage: Stage) -> Tensor:
    """Captions' codes against the sentence encoder's: of texts by index."""
    assert inputs.sentences is not None
    captions = [inputs.encode(inputs.texts[row], stage.caption_tokens) for row in rows]
    found = codes(inputs.student, captions, inputs.recipe.align_layers)
    found = (found - found.mean(dim=0)) / (found.std(dim=0) + 1e-6)
    wanted = torch.from_numpy(inputs.sentences[list(rows)]).to(found.device)
    return losses.likeness_loss(found, wanted, inputs.temperature(stage))


def align(inputs: Inputs, pairs: Sequence[tuple[int, str]], stage: Stage, turn: int) -> Tensor:
    """The mean image token against the caption's code, which the language model has halfway up:
    the residual stream carries directions upwards, so that what the projector writes is what
    upper layers read.

    Both in units of the codes' spread. Codes count as deviations from their mean. What all captions
    share (most of it is the few huge numbers that language models keep in their residual stream) is
    not for images to write: norms would scale what tells one image from another down to a
    hundredth.
    """
    if inputs.words is None:
        raise ValueError("`align` needs the captions' codes")
    images = inputs.images([image for image, _ in pairs], stage, turn)
    mean, spread = (torch.from_numpy(x).to(images.device) for x in inputs.words.scale)
    words = torch.from_numpy(np.stack([inputs.words[pair] for pair in pairs])).to(images.device)
    normalize = torch.nn.functional.normalize
    seen = normalize(images.float().mean(dim=1) / spread, dim=-1)
    told = normalize((words - mean) / spread, dim=-1)
    return losses.info_nce(seen @ told.T / inputs.temperature(stage), _same(pairs))


def contrast(inputs: Inputs, pairs: Sequence[tuple[int, str]], stage: Stage, turn: int) -> Tensor:
    """The last hidden state after an image against that after its caption."""
    student = inputs.student
    after = student.template.after
    images = inputs.images([image for image, _ in pairs], stage, turn)
    seen, told = [], []
    for _, text in pairs:
        tree, last = student.with_image()
        tree.extend(last, after)
        seen.append(tree)
        tree, last = student.without_image()
        inputs.tell(tree, last, text, stage)
        told.append(tree)
    a = _ends(student.hidden(seen, images, stage.contrast_layers), seen)
    b = _ends(student.hidden(told, None, stage.contrast_layers), told)
    # Centred: what all images (all captions) share is most of a hidden state and says nothing.
    normalize = torch.nn.functional.normalize
    a, b = (normalize(x.float() - x.float().mean(dim=0), dim=-1) for x in (a, b))
    return losses.info_nce(a @ b.T / inputs.temperature(stage), _same(pairs))


def _same(pairs: Sequence[tuple[int, str]]) -> Tensor:
    """(B, B): pairs with the same image or the same caption are no rivals."""
    images = np.array([image for image, _ in pairs])
    texts = np.array([text for _, text in pairs], dtype=object)
    return torch.from_numpy(
        (images[:, None] == images[None]) | (texts[:, None] == texts[None]).astype(bool)
    )


def _ends(hidden: Tensor, trees: Sequence[TokenTree]) -> Tensor:
    """The hidden state (B, D) at each tree's last token."""
    last = torch.tensor([len(tree) - 1 for tree in trees], device=hidden.device)
    return hidden[torch.arange(len(trees), device=hidden.device), last]
