"""The losses of fine-tuning, each a mean over what it is given (what for: `recipe.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from udfs.training.numbers import begun, expectation, soft_targets

if TYPE_CHECKING:
    from torch import Tensor

    from udfs.number_tree import NumberTree


def info_nce(similarity: Tensor, same: Tensor | None = None) -> Tensor:
    """Symmetric cross-entropy of a (B, B) matrix of logits whose diagonal is right (InfoNCE,
    arXiv 1807.03748; both ways as in CLIP). `same` (B, B) marks pairs that are no rivals, such as
    two pairs with the same image."""
    import torch

    if same is not None:
        off = same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)
        least = torch.finfo(similarity.dtype).min
        similarity = similarity.masked_fill(off.to(similarity.device), least)
    right = torch.arange(len(similarity), device=similarity.device)
    cross_entropy = torch.nn.functional.cross_entropy
    return (cross_entropy(similarity, right) + cross_entropy(similarity.T, right)) / 2


def likeness_loss(found: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """Divergence (Kullback-Leibler) of which of B vectors (B, D) are alike from which shall be, by
    the cosines of other vectors (B, E): for each a softmax over all others (arXiv 2101.04731)."""
    import torch

    cosines = [torch.nn.functional.normalize(x, dim=-1) for x in (found, wanted)]
    own = torch.eye(len(found), dtype=torch.bool, device=found.device)
    logits = [((x @ x.T) / temperature).masked_fill(own, -1e4) for x in cosines]
    log_p, log_q = (x.log_softmax(dim=-1) for x in logits)
    return torch.nn.functional.kl_div(log_p, log_q, log_target=True, reduction="batchmean")


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


def correlation_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """One less Pearson's correlation of two rows of numbers (R,): 0..2, and 1 where either has no
    spread (arXiv 2205.10536)."""
    import torch

    a, b = (x.float() - x.float().mean() for x in (found, wanted))
    return 1 - torch.nn.functional.cosine_similarity(a, b, dim=0)


def rank_loss(better: Tensor, worse: Tensor) -> Tensor:
    """Softplus of how far log odds that should be lower lie above those that should be higher
    (RankNet, ICML 2005); shapes as they broadcast."""
    import torch

    return torch.nn.functional.softplus(worse - better).mean()
