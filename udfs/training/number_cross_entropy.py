"""Cross-entropy over the number 0..100, with soft targets around the teacher's score.

A teacher that says 62 does not mean that 61 is as wrong as 3: the target is a discretised normal
distribution around the score (label distribution learning; Gao et al., arXiv 1611.01731).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from udfs.scoring.number_tree import NUMBERS

if TYPE_CHECKING:
    from torch import Tensor


def soft_targets(scores: Tensor, spread: Tensor) -> Tensor:
    """Targets (R, 101) around `scores` (R,), 0..100, with standard deviations `spread` (R,) in
    points; the nearest number alone where that is 0."""
    import torch

    values = torch.arange(NUMBERS, dtype=torch.float32, device=scores.device)
    distance = values - scores.float()[:, None]
    # A thousandth of a point: what is left beside the nearest number is 0 in float32.
    width = spread.float().clamp(min=1e-3)[:, None]
    nearest = (values - scores.float().round()[:, None] == 0).float()
    soft = (-0.5 * (distance / width) ** 2).softmax(dim=-1)
    return torch.where(spread[:, None] > 0, soft, nearest)


def number_cross_entropy(log_p: Tensor, scores: Tensor, spread: Tensor) -> Tensor:
    """Mean cross-entropy in nats of log probabilities (R, 101) against the soft targets."""
    return -(soft_targets(scores, spread) * log_p).sum(dim=-1).mean()
