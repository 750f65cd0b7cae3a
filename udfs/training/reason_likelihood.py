"""Negative log-likelihood of the teacher's reason (and of the answers in conversations), by token.

With the number first this is the paper's rationalization, with the reason first its chain of
thought (arXiv 2403.02677, section 3.3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def reason_likelihood(logits: Tensor, tokens: Tensor) -> Tensor:
    """Mean negative log-likelihood in nats of `tokens` (T,) under logits (T, V)."""
    import torch

    return torch.nn.functional.cross_entropy(logits.float(), tokens)
