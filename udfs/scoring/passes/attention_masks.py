"""Attention masks of packed sequences, taken from the masks that the model itself makes.

Which tokens see one another is the family's business: an image's tokens may see each other (Gemma 3
and 4, Molmo 2), a layer may see a window only, a whole prompt may be bidirectional (PaliGemma). So
the model's own function is asked for its mask over a *plain* sequence, and each pair of packed
tokens gets the value that it has there, unless the two are on different branches of the tree.
https://huggingface.co/docs/transformers/main/en/attention_interface#attention-mask-interface
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

ANSWER_TYPES = {"paligemma": {"token_type_ids": 1}}
"""What a token of the answer gets in a processor's outputs with one value a token, for families
where it differs from a prompt's text, 0: PaliGemma's prompts are bidirectional, its answers causal
(as its `_update_model_kwargs_for_generation` has it)."""


class MaskError(ValueError):
    """No mask of the kind that packed sequences need can stand for the model's own."""


def unwrapped(model: Any) -> Any:
    """The model within the wrapper that `peft` puts around it, if there is one."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def extended_types(model: Any, per_token: dict[str, Tensor], answers: Tensor) -> dict[str, Tensor]:
    """A processor's outputs with one value a token, (B, P), for L tokens: text of the prompt
    follows, and where `answers` (B, L) is true the answer's."""
    import torch

    types = ANSWER_TYPES.get(unwrapped(model).config.model_type, {})
    length = answers.shape[1]
    return {
        name: torch.nn.functional.pad(
            value[:, :length], (0, max(0, length - value.shape[1]))
        ).masked_fill(answers, types.get(name, 0))
        for name, value in per_token.items()
    }


def packed_masks(
    model: Any,
    per_token: dict[str, Tensor],
    order: Tensor,
    answers: Tensor,
    related: Tensor,
    dtype: Any,
) -> Tensor | dict[str, Tensor]:
    """Additive masks (B, 1, T, T) for T packed tokens: 0 where a token is visible, the dtype's
    minimum where it is not. One mask for all layers, or one for each type of layer.

    `per_token` (B, P) holds the processor's outputs for the heads, `order` (B, T) is the index of
    each packed token in its plain sequence, `answers` (B, T) is true for tokens of answers, and
    `related` (B, T, T) where two tokens share a branch (nowhere for padding).

    Raises MaskError for layers whose state no mask can undo (linear attention, convolutions).
    """
    import torch

    ends = order.amax(dim=1, keepdim=True)
    real = torch.arange(int(ends.max()) + 1, device=order.device) <= ends  # (B, L)
    plain_answers = real.long().zero_().scatter_reduce(1, order, answers.long(), "amax")
    types = extended_types(model, per_token, plain_answers.bool())
    masks = _own_masks(model, real, types)
    if not isinstance(masks, dict):
        return _packed(_visible(masks, "its layers"), order, related, dtype)
    packed = {
        kind: _packed(_visible(mask, f"layers of {kind}"), order, related, dtype)
        for kind, mask in masks.items()
    }
    first, *others = packed.values()
    if all(torch.equal(first, other) for other in others):  # as long as no window is too narrow
        return first  # which also models take that know nothing of a mask for each type (PaliGemma)
    return packed


def _own_masks(model: Any, real: Tensor, per_token: dict[str, Tensor]) -> Any:
    """What the model's own function for masks makes of plain sequences."""
    import torch
    from transformers.masking_utils import create_masks_for_generate

    base = unwrapped(model)
    config = copy.deepcopy(base.config)
    for part in (config, config.get_text_config()):
        part._attn_implementation = "eager"  # the others leave out what their kernels imply
    create: Any = getattr(base, "create_masks_for_generate", create_masks_for_generate)
    return create(
        config=config,
        inputs_embeds=torch.empty(*real.shape, 0, device=real.device),  # read for its shape
        attention_mask=real.long(),
        past_key_values=None,
        position_ids=None,
        **per_token,
    )


def _visible(mask: Any, layers: str) -> Tensor:
    """(B, L, L) true where a token sees another, from an additive mask (B, 1, L, L)."""
    if getattr(mask, "ndim", 0) != 4:
        raise MaskError(f"{layers} carry a state through the sequence, which no mask can undo")
    visible: Tensor = mask[:, 0] == 0
    return visible


def _packed(own: Tensor, order: Tensor, related: Tensor, dtype: Any) -> Tensor:
    import torch

    rows, tokens = order.shape
    row = torch.arange(rows, device=order.device)[:, None, None]
    visible = own[row, order[:, :, None], order[:, None, :]] & related
    visible |= torch.eye(tokens, dtype=torch.bool, device=order.device)  # also padding: avoids NaN
    additive = torch.zeros(visible.shape, dtype=dtype, device=order.device)
    return additive.masked_fill_(~visible, torch.finfo(dtype).min)[:, None]
