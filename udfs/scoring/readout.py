"""Turns logits at the number tree's nodes into distributions over 0..100; mean, mode, entropy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from udfs.scoring.number_tree import NUMBERS, NumberTree

if TYPE_CHECKING:
    from torch import Tensor

Distributions = npt.NDArray[np.float64]
_VALUES = np.arange(NUMBERS, dtype=np.float64)


def distributions(logits: Tensor, tree: NumberTree) -> Distributions:
    """Turn logits (B, M, N, V) into probabilities (B, M, 101) that sum to 1 over the last axis.

    At the root only the first tokens of numbers count (the answer is assumed to begin with a
    number); at a node that is itself a number, any token that does not continue it ends it.
    """
    tokens = sorted({token for node in tree.nodes for token in node.children})
    chosen, totals = _reduce(logits, tokens)
    column = {token: i for i, token in enumerate(tokens)}
    with np.errstate(over="ignore"):
        shares = np.exp(chosen - totals[..., None])  # (B, M, N, T)
    probability: list[Any] = []  # for each node: of each child token, and of ending there
    for i, node in enumerate(tree.nodes):
        children = shares[:, :, i, [column[token] for token in node.children]]
        continues = children.sum(axis=-1)
        ends = np.clip(1 - continues, 0, None) if node.number >= 0 else np.zeros_like(continues)
        total = continues + ends
        probability.append(
            (
                dict(zip(node.children, np.moveaxis(children, -1, 0) / total, strict=True)),
                ends / total,
            )
        )
    result = np.empty((*totals.shape[:2], NUMBERS))
    for number in range(NUMBERS):
        product = np.ones(totals.shape[:2])
        for node_index, token in tree.steps[number]:
            product = product * probability[node_index][0][token]
        end = tree.ends[number]
        result[:, :, number] = product * probability[end][1] if end >= 0 else product
    return result


def _reduce(logits: Tensor, tokens: list[int]) -> tuple[Any, Any]:
    """The logits of `tokens` (B, M, N, T) and the logsumexp over the whole vocabulary (B, M, N), in
    float64; row by row, because a float copy of all logits might not fit into memory."""
    import torch

    index = torch.tensor(tokens, device=logits.device)
    chosen = logits.index_select(-1, index).double().cpu().numpy()
    totals = torch.stack([row.float().logsumexp(dim=-1) for row in logits]).double().cpu().numpy()
    return chosen, totals


def log_probabilities(logits: Tensor, tree: NumberTree) -> Tensor:
    """The same in torch, with a gradient, for training: logits (R, N, V) to log probabilities
    (R, 101), in float32."""
    import torch

    logits = logits.float()
    log_total = logits.logsumexp(dim=-1)  # (R, N)
    steps: dict[tuple[int, int], Tensor] = {}
    ends: dict[int, Tensor] = {}
    for i, node in enumerate(tree.nodes):
        children = logits[:, i, list(node.children)]  # (R, C)
        if node.number >= 0:
            begun = children.logsumexp(dim=-1) - log_total[:, i]
            # log(1 - p), with a floor: a model that is sure to go on still has a gradient.
            ends[i] = torch.log(-torch.expm1(begun.clamp(max=-1e-6)))
            norm = log_total[:, i]
        else:
            norm = children.logsumexp(dim=-1)
        for c, token in enumerate(node.children):
            steps[i, token] = children[:, c] - norm
    numbers = []
    for number in range(NUMBERS):
        parts = [steps[step] for step in tree.steps[number]]
        if tree.ends[number] >= 0:
            parts.append(ends[tree.ends[number]])
        numbers.append(torch.stack(parts).sum(dim=0))
    return torch.stack(numbers, dim=-1)


def expected_number(log_p: Tensor) -> Tensor:
    """Mean of the number, 0..100, with a gradient: (R, 101) -> (R,)"""
    import torch

    values = torch.arange(NUMBERS, dtype=log_p.dtype, device=log_p.device)
    return log_p.exp() @ values


def expectation(distribution: Distributions) -> Distributions:
    """The mean, 0..100: a continuous score without ties. (..., 101) -> (...)"""
    return np.asarray(distribution @ _VALUES)


def mode(distribution: Distributions) -> npt.NDArray[np.int64]:
    """The likeliest number, as greedy generation would print it. (..., 101) -> (...)"""
    return np.asarray(distribution.argmax(axis=-1))


def entropy(distribution: Distributions) -> Distributions:
    """How uncertain the model is, in bits: 0 (certain) to 6.66 (uniform). (..., 101) -> (...)"""
    safe = np.clip(distribution, 1e-300, None)
    return np.asarray(-(distribution * np.log2(safe)).sum(axis=-1) + 0.0)
