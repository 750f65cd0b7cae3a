"""Where language layers look: the log odds with which a caption's tokens attend to an image.

A head of attention compares: queries of caption tokens with keys of image tokens, by inner product.
The `attend` loss teaches some layers' heads to look at an image where it shows what the caption
says, and to look elsewhere where it does not. Images and captions run through the layers below once
each, and every pair of them costs inner products only, so that all others of a batch are rivals.
What heads have looked at stands in the residual stream, where the layers above learn to read it.

For language models with rotary positions and separate q, k projections (Llama, Qwen, SmolLM ...).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from udfs.training.student import Student
from udfs.training.tree import TokenTree

if TYPE_CHECKING:
    from torch import Tensor


class Kept:
    """States of frozen layers, each computed once and kept in memory, in half precision."""

    def __init__(self) -> None:
        self._states: dict[object, list[Tensor]] = {}

    def read(
        self,
        keys: Sequence[object],
        lengths: Sequence[int],
        make: Callable[[Sequence[int]], list[Tensor]],
    ) -> list[Tensor]:
        """For each depth states (B, L, D) of B keys; `make` is asked for each row that is new."""
        import torch

        for row, key in enumerate(keys):
            # One by one: what a batch pads would round last bits in one way or another, and a
            # training that is gone on with has other batches.
            if key not in self._states:
                self._states[key] = [x[0, : lengths[row]].half() for x in make([row])]
        rows = zip(*(self._states[key] for key in keys), strict=True)
        return [torch.nn.utils.rnn.pad_sequence(list(x), batch_first=True).float() for x in rows]


def looks(
    student: Student,
    images: Sequence[int],
    project: Callable[[Sequence[int]], Tensor],
    captions: Sequence[Sequence[int]],
    depths: Sequence[int],
    kept: Kept | None = None,
) -> list[Tensor]:
    """For each depth (C, B): for C captions' tokens and B images (B, I, D) the log odds of
    attention on the image (and the words right behind it, which have seen it) against attention on
    anything else, in the language layer that has `depth` layers below it.

    The mean over the layer's heads and over tokens: half of it over those of the caption, half over
    those that follow every caption and sum it up. Captions do not see an image on their way up to
    the layer, but stand at the positions that they have behind one, so that any caption can be
    compared with any image.

    `project` gives the image tokens (B, I, D) of images by index. `kept` keeps what layers below
    the depths make of images and captions, where all of these are frozen.
    """
    head = student.head
    trees, tree, seen_below, told_below = _below(student, images, project, captions, depths, kept)
    seen = _rotated(student, [tree] * len(images), seen_below, depths)
    texts = _rotated(student, trees, told_below, depths)
    elsewhere, share = _elsewhere(student, trees, texts[0][0].shape[2])
    begin = len(head.before) + len(head.after)
    return [
        _log_odds(
            keys[:, :, len(head.before) : len(tree)], queries, others, elsewhere, share, begin
        )
        for (_, keys), (queries, others) in zip(seen, texts, strict=True)
    ]


def means(
    student: Student,
    images: Sequence[int],
    project: Callable[[Sequence[int]], Tensor],
    captions: Sequence[Sequence[int]],
    depths: Sequence[int],
    kept: Kept,
) -> list[tuple[Tensor, Tensor]]:
    """For each depth what projections of the layer above it read of captions and of images, each
    (B, D): the mean over an image's tokens, over a caption's with the shares that `looks` gives
    them."""
    import torch

    head = student.head
    trees, _, seen, told = _below(student, images, project, captions, depths, kept)
    _, share = _elsewhere(student, trees, told[0].shape[1])
    first, found = len(head.before), []
    for depth, images_below, captions_below in zip(depths, seen, told, strict=True):
        norm = student.core.language_model.layers[depth].input_layernorm
        pictures = norm(images_below)[:, first : first + len(head.image)].mean(dim=1)
        words = torch.einsum("cl,cld->cd", share[:, 0, 0], norm(captions_below))
        found.append((words, pictures))
    return found


def _below(
    student: Student,
    images: Sequence[int],
    project: Callable[[Sequence[int]], Tensor],
    captions: Sequence[Sequence[int]],
    depths: Sequence[int],
    kept: Kept | None,
) -> tuple[list[TokenTree], TokenTree, list[Tensor], list[Tensor]]:
    """Captions' trees and the tree of every image, and for each depth the states of the images and
    of the captions."""
    after = student.template.after
    tree, _ = student.with_image()
    trees = []
    for tokens in captions:
        told, last = student.without_image(gap=True)
        told.extend(told.extend(last, tokens), after)
        trees.append(told)

    def seen_by(rows: Sequence[int]) -> list[Tensor]:
        shown = project([images[row] for row in rows])
        return student.residuals([tree] * len(rows), shown, depths)

    def told_by(rows: Sequence[int]) -> list[Tensor]:
        return student.residuals([trees[row] for row in rows], None, depths)

    if kept is None:
        return trees, tree, seen_by(range(len(images))), told_by(range(len(trees)))
    names = [tuple(caption) for caption in captions]
    learning = student.model.training
    student.model.eval()  # what is kept is without dropout
    try:
        seen = kept.read(images, [len(tree)] * len(images), seen_by)
        read = kept.read(names, [len(told) for told in trees], told_by)
    finally:
        student.model.train(learning)
    return trees, tree, seen, read


def _elsewhere(student: Student, trees: Sequence[TokenTree], length: int) -> tuple[Tensor, Tensor]:
    """Whether token l sees token m, which has nothing to do with the image, (C, 1, L, L); and the
    share of each token in the mean, (C, 1, 1, L)."""
    import torch

    head, after = student.head, student.template.after
    begin = len(head.before) + len(head.after)
    elsewhere = np.zeros((len(trees), 1, length, length), dtype=np.bool_)
    share = np.zeros((len(trees), 1, 1, length), dtype=np.float32)
    for row, tree in enumerate(trees):
        n, end = len(tree), len(tree) - len(after)
        elsewhere[row, 0, :n, :n] = tree.visible()
        elsewhere[row, 0, :, len(head.before) : begin] = False
        for first, last in ((begin, end), (end, n)):
            share[row, 0, 0, first:last] = 0.5 / max(1, last - first)
    elsewhere[:, 0, np.arange(length), np.arange(length)] = True  # padding: no NaN
    device = student.model.device
    return torch.from_numpy(elsewhere).to(device), torch.from_numpy(share).to(device)


def _log_odds(
    keys: Tensor, queries: Tensor, others: Tensor, elsewhere: Tensor, share: Tensor, begin: int
) -> Tensor:
    """(C, B) from B images' keys (B, G, I, d) and C captions' queries (C, H, L, d) and keys (C, G,
    L, d), of which tokens count from `begin`."""
    import torch

    heads, groups = queries.shape[1], keys.shape[1]
    logits = queries @ others.repeat_interleave(heads // groups, dim=1).transpose(-1, -2)
    sink = logits.masked_fill(~elsewhere, -torch.inf).logsumexp(dim=-1)[:, :, begin:]  # (C, H, T)
    wanted = queries[:, :, begin:]
    wanted = wanted.reshape(len(queries), groups, -1, wanted.shape[-1])  # (C, G, H/G * T, d)
    there = torch.einsum("cgtd,bgid->cbgti", wanted, keys).logsumexp(dim=-1)
    there = there.reshape(len(queries), len(keys), heads, -1)  # (C, B, H, T)
    odds: Tensor = ((there - sink[:, None]) * share[..., begin:]).sum(dim=-1).mean(dim=-1)
    return odds


def _rotated(
    student: Student, trees: Sequence[TokenTree], below: Sequence[Tensor], depths: Sequence[int]
) -> list[tuple[Tensor, Tensor]]:
    """For each depth, of the states `below` it, queries (B, H, L, d) and keys (B, G, L, d) of the
    layer above it, at their positions, in float32; keys are scaled as attention scales."""
    import torch
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    model, found = student.core.language_model, []
    for depth, states in zip(depths, below, strict=True):
        layer = model.layers[depth]
        attention, states = layer.self_attn, layer.input_layernorm(states)
        shape = (*states.shape[:2], -1, attention.head_dim)
        queries = attention.q_proj(states).view(shape)
        keys = attention.k_proj(states).view(shape)
        if hasattr(attention, "q_norm"):  # Qwen3 and later
            queries, keys = attention.q_norm(queries), attention.k_norm(keys)
        positions = torch.zeros(states.shape[:2], dtype=torch.long, device=states.device)
        for row, tree in enumerate(trees):
            positions[row, : len(tree)] = torch.tensor(tree.depths, device=states.device)
        cos, sin = model.rotary_emb(states, positions)
        queries, keys = queries.transpose(1, 2).float(), keys.transpose(1, 2).float()
        queries, keys = apply_rotary_pos_emb(queries, keys, cos.float(), sin.float())
        found.append((queries, keys * attention.scaling))
    return found
