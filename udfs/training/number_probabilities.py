"""The read-out of scores as in `udfs.scoring.readout`, in torch and differentiable."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from udfs.scoring.number_tree import NUMBERS, NumberTree

if TYPE_CHECKING:
    from torch import Tensor

MOST_AWAY = 10
"""Points by which a number may lie beside the middle of those that begin alike."""


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


@lru_cache  # asked for each number that is drawn
def stand_ins(tree: NumberTree) -> tuple[int, ...]:
    """For each number 0..100 the nearest one whose first token tells about where it lies.

    Where each digit is a token, 4 begins like 40 to 49 and 100 like 10 to 19: a first token that is
    learned for 4 says 44 to all that look no further. So 1 to 5 are learned as 0, 6 to 9 as 10 and
    100 as 99. Where numbers are tokens, each stands for itself."""
    first = [steps[0][1] for steps in tree.steps]
    alike: dict[int, list[int]] = {}
    for number, token in enumerate(first):
        alike.setdefault(token, []).append(number)
    middle = [statistics.median(alike[token]) for token in first]
    clear = [n for n in range(NUMBERS) if abs(middle[n] - n) <= MOST_AWAY]
    return tuple(min(clear or [n], key=lambda other: abs(other - n)) for n in range(NUMBERS))


def begun(hidden: Tensor, head: Tensor, tree: NumberTree) -> tuple[Tensor, Tensor, Tensor]:
    """How numbers begin, from hidden states (R, D) at the root and the head's weights (V, D): log
    probabilities (R, C) of the C first tokens, which numbers each stands for (C, 101), as 0 or 1,
    and their middle (C,), 0..100. Most of the vocabulary is not looked at."""
    import torch

    tokens = list(tree.nodes[0].children)
    log_p = (hidden.to(head.dtype) @ head[tokens].T).float().log_softmax(dim=-1)
    first = torch.tensor([tree.steps[n][0][1] for n in stand_ins(tree)], device=hidden.device)
    begins = first[None] == torch.tensor(tokens, device=hidden.device)[:, None]  # (C, 101)
    middles = [float(row.nonzero().float().quantile(0.5)) for row in begins]
    return log_p, begins.float(), torch.tensor(middles, device=hidden.device)


def begun_odds(hidden: Tensor, head: Tensor, tree: NumberTree, at: int = 50) -> Tensor:
    """`log_odds` as far as a number's first token tells them: those that begin numbers whose middle
    is at least `at` against the others (`stand_ins`)."""
    log_p, _, middles = begun(hidden, head, tree)
    high = middles >= at
    return log_p[..., high].logsumexp(dim=-1) - log_p[..., ~high].logsumexp(dim=-1)


def path_log_probabilities(
    hidden: Tensor, nodes: Sequence[int], tokens: Sequence[int], head: Tensor, tree: NumberTree
) -> Tensor:
    """Log probability (T,) of each single step to a number, by the rules of `log_probabilities`:
    from hidden states (T, D) at `nodes` to `tokens`, where -1 means that the number ends there.

    Those of a number's steps add up to its own.
    """
    import torch

    found = hidden.new_zeros(len(nodes), dtype=torch.float32)
    roots = [i for i, node in enumerate(nodes) if node == 0]
    others = [i for i, node in enumerate(nodes) if node != 0]
    if roots:
        children = list(tree.nodes[0].children)
        log_p = (hidden[roots].to(head.dtype) @ head[children].T).float().log_softmax(dim=-1)
        found[roots] = log_p[range(len(roots)), [children.index(tokens[i]) for i in roots]]
    if others:
        log_p = (hidden[others].to(head.dtype) @ head.T).float().log_softmax(dim=-1)
        # Each row's way on, or, where the number ends, all ways on, which are those not taken.
        ends = torch.tensor([tokens[i] < 0 for i in others], device=hidden.device)
        ways = [tree.nodes[nodes[i]].children if tokens[i] < 0 else (tokens[i],) for i in others]
        most = max(map(len, ways))
        index = torch.tensor([[*way, *way[:1] * (most - len(way))] for way in ways])
        real = torch.tensor([[j < len(way) for j in range(most)] for way in ways])
        taken = log_p.gather(1, index.to(log_p.device))
        taken = taken.masked_fill(~real.to(log_p.device), -torch.inf).logsumexp(dim=-1)
        ended = torch.log(-torch.expm1(taken.clamp(max=-1e-6)))
        found[others] = torch.where(ends, ended, taken)
    return found


def path(number: int, tree: NumberTree) -> list[tuple[int, int]]:
    """The (node, token) steps to a number, and (node, -1) where it must end."""
    end = tree.ends[number]
    return [*tree.steps[number], *([(end, -1)] if end >= 0 else [])]


def soft_targets(scores: Tensor, spread: float) -> Tensor:
    """Target distributions (..., 101) around scores (...): a discrete bell of standard deviation
    `spread` points, cut at 0 and 100; the number alone where `spread` is 0."""
    import torch

    values = torch.arange(NUMBERS, dtype=torch.float32, device=scores.device)
    distance = values - scores.float()[..., None]
    if spread == 0:
        return (distance.abs() < 0.5).float()
    return (-0.5 * (distance / spread) ** 2).softmax(dim=-1)
