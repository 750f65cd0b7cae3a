"""The read-out of scores as in `udfs.readout`, in torch and differentiable."""

from __future__ import annotations

from typing import TYPE_CHECKING

from udfs.number_tree import NUMBERS, NumberTree

if TYPE_CHECKING:
    from torch import Tensor


def log_probabilities(logits: Tensor, tree: NumberTree) -> Tensor:
    """Logits (..., N, V) at the N nodes of a number tree to log probabilities (..., 101).

    The same rules as `readout.distributions`: at the root only numbers count; at a node that is a
    number itself, all tokens that do not continue it end it. Computed in float32.
    """
    import torch

    logits = logits.float()
    log_total = logits.logsumexp(dim=-1)  # (..., N)
    told: dict[tuple[int, int], Tensor] = {}
    ended: dict[int, Tensor] = {}
    for i, node in enumerate(tree.nodes):
        children = logits[..., i, list(node.children)]  # (..., C)
        if node.number >= 0:
            log_children = children.logsumexp(dim=-1) - log_total[..., i]
            # log(1 - p), with a floor: a model that is sure to go on still has a gradient.
            ended[i] = torch.log(-torch.expm1(log_children.clamp(max=-1e-6)))
            norm = log_total[..., i]
        else:
            norm = children.logsumexp(dim=-1)
        for c, token in enumerate(node.children):
            told[i, token] = children[..., c] - norm
    result = []
    for number in range(NUMBERS):
        parts = [told[step] for step in tree.steps[number]]
        if tree.ends[number] >= 0:
            parts.append(ended[tree.ends[number]])
        result.append(torch.stack(parts).sum(dim=0))
    return torch.stack(result, dim=-1)


def expectation(log_p: Tensor) -> Tensor:
    """Mean of the number, 0..100: (..., 101) -> (...)"""
    import torch

    return log_p.exp() @ torch.arange(NUMBERS, dtype=log_p.dtype, device=log_p.device)


def log_odds(log_p: Tensor, at: int = 50) -> Tensor:
    """Log odds of a number of at least `at` against a smaller one: (..., 101) -> (...). Unlike the
    mean it has a gradient even where the model is sure of the wrong number."""
    return log_p[..., at:].logsumexp(dim=-1) - log_p[..., :at].logsumexp(dim=-1)


def soft_targets(scores: Tensor, spread: float) -> Tensor:
    """Target distributions (..., 101) around scores (...): a discrete bell of standard deviation
    `spread` points, cut at 0 and 100; the number alone where `spread` is 0."""
    import torch

    values = torch.arange(NUMBERS, dtype=torch.float32, device=scores.device)
    distance = values - scores.float()[..., None]
    if spread == 0:
        return (distance.abs() < 0.5).float()
    return (-0.5 * (distance / spread) ** 2).softmax(dim=-1)
