"""Finds the fastest way to run a model that gives the answers of its plain sequences.

The ways are compared in float32, on the model's first layers: as many as hold every kind of layer
that it has. In half precision rounding alone moves scores by more than many a wrong mask does (on
the starter 0.3 points; a missing block of Gemma 3's mask on a tiny model 0.03), so no tolerance
there tells right from wrong. In the model's own dtype a way only has to stay as close to float32 as
plain sequences do.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from udfs.scoring.chat_template import Template
from udfs.scoring.packing import Row, Suffix, collate
from udfs.scoring.passes.attention_masks import unwrapped
from udfs.scoring.passes.forward_passes import PASSES, chains_of, plain_logits

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

TOLERANCE = 3e-4
"""The largest gap of a logit to that of a plain sequence, in standard deviations of the plain
logits, that is rounding in float32."""
OWN_ROUNDING = 2.0
"""How much further from float32 than plain sequences a way may be in the model's own dtype, as a
ratio of root mean squares."""
FEWEST_LAYERS = 2  # a mask shows in what the second layer makes of the first one's output
NARROW_WINDOW = 4096  # tokens: attention that sees fewer may not see a whole sequence


@dataclass(frozen=True)
class Selection:
    """The chosen `way`, a key of `PASSES`, and a line for each faster one that was `refused`."""

    way: str
    refused: tuple[str, ...]


def select_pass(
    model: Any,
    rows: list[Row],
    template: Template,
    suffix: Suffix,
    candidates: Sequence[str] = tuple(PASSES)[:-1],
) -> Selection:
    """The first of `candidates` (keys of PASSES) that gives the answers of plain sequences for
    `rows` as one batch, else "four_passes".

    Compared at all questions, at the root and along the longest chain of number tokens. Costs a
    plain sequence for each row and question, and a pass for each candidate, on few layers.
    """
    import torch

    dtype = model.dtype
    chains, nodes = chains_of(template, model.device)
    compared = [0] + [1 + nodes.index(node) for node in nodes if node[0] == len(chains) - 1]

    def plain() -> Tensor:
        batch = _batch(model, rows)
        by_row = [
            [
                plain_logits(model, batch, row, question, chains[-1:])
                for question in template.questions
            ]
            for row in range(len(rows))
        ]
        return torch.stack([torch.cat(each) for each in by_row]).float()  # (B, M, C, V)

    def packed(way: str) -> Tensor:
        return PASSES[way](model, _batch(model, rows), template, suffix)[:, :, compared].float()

    refused: list[str] = []
    with torch.no_grad():
        with first_layers(model, torch.float32):
            expected = plain()
        with first_layers(model, dtype):
            rounding = _rms(plain() - expected) if dtype != torch.float32 else 0.0
        for way in candidates:
            try:
                with first_layers(model, torch.float32):
                    gap = largest_gap(packed(way), expected)
                why = f"its logits are off by {gap:.2g} standard deviations in float32"
                right = gap <= TOLERANCE
                if right and rounding:
                    with first_layers(model, dtype):
                        ratio = _rms(packed(way) - expected) / rounding
                    why = f"{ratio:.2g} times as far from float32 in {dtype} as plain sequences"
                    right = ratio <= OWN_ROUNDING
            except (TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
                why, right = str(error).split("\n")[0], False
            if right:
                return Selection(way, tuple(refused))
            refused.append(f"{way}: {why}")
            log.info("refused with this model: %s", refused[-1])
    return Selection("four_passes", tuple(refused))


def largest_gap(found: Tensor, expected: Tensor) -> float:
    """The largest gap of a logit, in standard deviations of the expected ones; (..., V) each."""
    return float(((found - expected).abs().amax(-1) / expected.std(-1)).max())


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def _batch(model: Any, rows: list[Row]) -> Any:
    return collate(rows, max(len(row.ids) for row in rows), model.device, model.dtype)


def padding_within(model: Any) -> str | None:
    """Why padding in the middle of a sequence would change this model's answers; None if not."""
    text = unwrapped(model).config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ())
    if states := kinds - {"full_attention", "sliding_attention", "chunked_attention"}:
        return f"its layers of {', '.join(sorted(states))} carry a state through the sequence"
    window = getattr(text, "sliding_window", None) or getattr(text, "attention_chunk_size", None)
    if kinds != {"full_attention"} and window is not None and window < NARROW_WINDOW:
        return f"some of its layers see {window} tokens only"
    return None


@contextmanager
def first_layers(model: Any, dtype: Any) -> Iterator[None]:
    """The model cut to its first layers, as many as hold every kind of layer that it has (at least
    FEWEST_LAYERS), in `dtype`, on a GPU without TF32. Takes memory for a copy of what is converted,
    and leaves the model as it was."""
    from torch.backends import cudnn

    decoder, training = model.get_decoder(), model.training
    while not hasattr(decoder, "layers"):  # Llama 4 names its causal model here
        decoder = decoder.model
    layers = decoder.layers
    weights = [(weight, weight.data) for weight in model.parameters()]
    buffers = [(module, dict(module._buffers)) for module in model.modules()]
    decoder.layers = layers[: _enough(layers, model.config.get_text_config())]
    try:
        if dtype != model.dtype:
            model.to(dtype)
        model.eval()
        with cudnn.flags(enabled=cudnn.enabled, allow_tf32=False):
            yield
    finally:
        decoder.layers = layers
        for weight, data in weights:
            weight.data = data
        for module, saved in buffers:
            module._buffers.update(saved)
        model.train(training)


def _enough(layers: Any, config: Any) -> int:
    """How many of the first layers hold every kind: by their type in the configuration, by their
    modules, and by whether they share keys and values with an earlier layer (Gemma 4)."""
    types = getattr(config, "layer_types", None) or [None] * len(layers)
    kinds = [
        (types[i], str(layer), getattr(getattr(layer, "self_attn", None), "is_kv_shared_layer", 0))
        for i, layer in enumerate(layers)
    ]
    return max(FEWEST_LAYERS, *(kinds.index(kind) + 1 for kind in set(kinds)))
