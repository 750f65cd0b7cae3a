"""Squared error of the expectation: the mean of the model's distribution against the score."""

from __future__ import annotations

from typing import TYPE_CHECKING

from udfs.scoring.readout import expected_number

if TYPE_CHECKING:
    from torch import Tensor

UNIT = 25.0
"""Points that count as 1, so that the loss is of the size of a cross-entropy."""


def expectation_error(log_p: Tensor, scores: Tensor) -> Tensor:
    """Mean squared error, in units of 25 points, of log probabilities (R, 101) against scores."""
    import torch

    return torch.nn.functional.mse_loss(expected_number(log_p) / UNIT, scores.float() / UNIT)
