"""What a linear layer's low-rank adapter (peft's LoRA) adds to its weight, read and written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253 - as in objective.py

if TYPE_CHECKING:
    from torch import Tensor


def matrices(layer: Any) -> tuple[Tensor, Tensor, float]:
    """The adapter's weights: low (R, F), high (D, R), and how much their product counts."""
    low, high = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    return low, high, layer.scaling["default"]


def added(layer: Any) -> Tensor:
    """What is added to the layer's weight (D, F)."""
    low, high, scaling = matrices(layer)
    return scaling * high @ low


def base(layer: Any) -> Tensor:
    """The layer's weight (D, F) without the adapter, in float32 whatever it is kept in."""
    weight: Tensor = layer.base_layer.weight
    return weight.float()


def whole(layer: Any) -> Tensor:
    """The layer's weight (D, F) with what the adapter adds."""
    return base(layer) + added(layer)


@torch.no_grad()
def add(layer: Any, more: Tensor | float, rank: int | None = None) -> None:
    """Let the adapter add `more` (D, F) as well: of all that it holds then the most that its rank
    can, or its first `rank` rows, with nothing in the others."""
    low, high, scaling = matrices(layer)
    rank = len(low) if rank is None else rank
    u, s, v = torch.linalg.svd(high @ low + more / scaling, full_matrices=False)
    root = s[:rank].sqrt()
    low.zero_()
    high.zero_()
    low[:rank] = root[:, None] * v[:rank]
    high[:, :rank] = u[:, :rank] * root
