"""The losses of fine-tuning, each a mean over what it is given (what for: `recipe.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from udfs.training.number_probabilities import begun, expectation, soft_targets

if TYPE_CHECKING:
    from torch import Tensor

    from udfs.scoring.number_tree import NumberTree


def score_loss(log_p: Tensor, scores: Tensor, spread: float, distance: float) -> Tensor:
    """Cross-entropy of read-outs (R, 101) against soft targets around the teacher's scores (R,),
    plus `distance` times the mean's squared distance in units of 25 points."""
    target = soft_targets(scores, spread)
    loss = -(target * log_p).sum(dim=-1).mean()
    if distance:
        loss = loss + distance * ((expectation(log_p) - scores) / 25).square().mean()
    return loss


def begun_loss(
    hidden: Tensor, head: Tensor, tree: NumberTree, scores: Tensor, spread: float, distance: float
) -> Tensor:
    """`score_loss` as far as the first tokens of numbers go, from hidden states (R, D) at the root:
    the share in the soft targets of those that each stands for (`stand_ins`), and the mean's
    distance with each token's middle number."""
    log_p, begins, middles = begun(hidden, head, tree)
    target = soft_targets(scores, spread) @ begins.T
    loss = -(target * log_p).sum(dim=-1).mean()
    if distance:
        loss = loss + distance * ((log_p.exp() @ middles - scores) / 25).square().mean()
    return loss


def rank_loss(better: Tensor, worse: Tensor) -> Tensor:
    """Softplus of how far log odds that should be lower lie above those that should be higher
    (RankNet, ICML 2005); shapes as they broadcast."""
    import torch

    return torch.nn.functional.softplus(worse - better).mean()
