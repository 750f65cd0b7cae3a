"""The second kind of scorer: the cosine of a dual encoder's image and text embeddings.

    scorer = loaded_model.scorer(ModelConfig("openai/clip-vit-base-patch32"))
    scorer.score([jpeg], ["A cat on a sofa."])[0].clip_score      # -1..1

The baseline that an MLM has to beat, and a signal of its own. Works with any CLIP-like model of
transformers (`DUAL_ENCODERS`), with the embeddings of the model's own `forward`: no scale, no bias,
no logits. The answers, statuses and limits are those of `udfs.scoring.mlm_scorer.Scorer`.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from udfs.inputs.captions import Encoder
from udfs.processes.activity import Record, unrecorded
from udfs.scoring import batching
from udfs.scoring.batching import Encoded, Limits, PairScorer, Prepared
from udfs.scoring.results import Scored

if TYPE_CHECKING:
    from torch import Tensor

DUAL_ENCODERS = frozenset(
    {
        "aimv2",
        "align",
        "altclip",
        "chinese_clip",
        "clip",
        "metaclip_2",
        "siglip",
        "siglip2",
        "vision-text-dual-encoder",
    }
)
"""`model_type` of the models whose `forward` returns `image_embeds` and `text_embeds`."""

VERSION = "dual-1"
"""Part of the scorer's hash: raise it with every change here that changes a cosine."""

# These take the text embedding from the last position, padding or not: they were trained on texts
# padded to the full length only.
_FULL_LENGTH = ("siglip", "siglip2")


def is_dual_encoder(folder: Path) -> bool:
    """Whether the model whose `config.json` lies in `folder` is one of DUAL_ENCODERS."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False  # loading the model will report what is wrong
    return isinstance(config, dict) and config.get("model_type") in DUAL_ENCODERS


@dataclass(frozen=True)
class Pair:
    """One encoded pair: `ids` (L,) with special tokens, not padded; `pixels` by name, (1, ...)
    each, as the image processor returns them."""

    ids: Tensor
    pixels: Mapping[str, Tensor]


class DualEncoder(PairScorer):
    """A loaded dual encoder with its processor.

    `model(input_ids=, pixel_values=, ...)` has to return `image_embeds` and `text_embeds`, (B, D)
    each. Texts with more tokens than the text tower takes (or than `max_caption_tokens`) are cut;
    the special tokens around them are kept. `batch_rows` and `batch_tokens` as in `Scorer`.

    Raises ValueError for a tokenizer whose special tokens cannot be told apart from the text's.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        max_caption_tokens: int = 512,
        batch_rows: int = 16,
        batch_tokens: int = 8192,
    ) -> None:
        self.model = model
        self.processor = processor
        self.limits = Limits(batch_rows, batch_tokens)
        tokenizer = processor.tokenizer
        self._begin, self._end = _special_tokens(tokenizer)
        # An end token inside a caption would end the text there.
        self._caption_tokens = Encoder(tokenizer, {*self._begin, *self._end})
        self.text_tokens = _text_tokens(model, tokenizer)
        room = self.text_tokens - len(self._begin) - len(self._end)
        self.max_caption_tokens = min(max_caption_tokens, room)
        pad = tokenizer.pad_token_id
        self._pad = pad if pad is not None else (tokenizer.eos_token_id or 0)
        self._uses_mask = "attention_mask" in tokenizer.model_input_names
        # An image processor may return more than the model takes.
        self._forward_parameters = frozenset(inspect.signature(model.forward).parameters)
        self._full_length = model.config.model_type in _FULL_LENGTH or not self._uses_mask

    def explain(self) -> list[str]:
        """How this model runs pairs, in a line."""
        name, dtype = type(self.model).__name__, str(self.model.dtype).removeprefix("torch.")
        return [
            f"{name} in {dtype} on {self.model.device}: clip_score",
            f"two_towers: image and caption apart, captions up to {self.max_caption_tokens} tokens",
        ]

    def prepare(self, image: Any, caption: Any) -> Prepared:
        """Decode, clean and encode one pair. Thread-safe."""
        return batching.prepare(image, caption, "as_is", self._encode)

    def score_prepared(
        self, prepared: Sequence[Prepared], record: Record = unrecorded
    ) -> list[Scored]:
        """Score prepared pairs in length-sorted micro-batches; answers in the original order."""
        return batching.score_prepared(prepared, self.limits, self.cosines, record=record)

    def cosines(self, pairs: list[Pair]) -> list[float]:
        """The cosine of each pair's two embeddings, for one batch; raises what the model raises."""
        import torch

        with torch.inference_mode():
            out = self.model(**self._inputs(pairs))
            image, text = out.image_embeds.float(), out.text_embeds.float()  # (B, D) each
            cosines = torch.nn.functional.cosine_similarity(image, text, dim=-1)
        return [float(cosine) for cosine in cosines.clamp(-1, 1)]

    def _inputs(self, pairs: list[Pair]) -> dict[str, Tensor]:
        """The model's inputs for one batch. Texts are padded on the right to the bucket of the
        longest one; all rows of a batch are of the same bucket."""
        import torch

        device, dtype = self.model.device, self.model.dtype
        longest = max(len(pair.ids) for pair in pairs)
        length = min(batching.padded(longest), self.text_tokens)
        if self._full_length:
            length = self.text_tokens
        ids = torch.full((len(pairs), length), self._pad)
        mask = torch.zeros((len(pairs), length), dtype=torch.long)
        for i, pair in enumerate(pairs):
            ids[i, : len(pair.ids)] = pair.ids
            mask[i, : len(pair.ids)] = 1
        inputs = {"input_ids": ids} | ({"attention_mask": mask} if self._uses_mask else {})
        for name in pairs[0].pixels:
            value = torch.cat([pair.pixels[name] for pair in pairs])
            inputs[name] = value.to(dtype) if value.is_floating_point() else value
        return {name: value.to(device) for name, value in inputs.items()}

    def _encode(self, picture: Any, text: str) -> Encoded:
        import torch

        ids, cut = self._caption_tokens(text, self.max_caption_tokens)
        pixels = self.processor.image_processor(images=[picture], return_tensors="pt")
        pixels = {k: value for k, value in pixels.items() if k in self._forward_parameters}
        row = Pair(torch.tensor([*self._begin, *ids, *self._end]), pixels)
        return Encoded(row, len(row.ids), len(ids) if cut else None)


def _special_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer puts before and after a text, e.g. [BOS] and [EOS]."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    for start in range(len(whole) - len(plain) + 1):
        if plain and whole[start : start + len(plain)] == plain:
            return list(whole[:start]), list(whole[start + len(plain) :])
    raise ValueError(f"its tokenizer turns 'a' into {plain} alone and {whole} with special tokens")


def _text_tokens(model: Any, tokenizer: Any) -> int:
    """How many tokens the text tower takes, special ones included."""
    limit = model.config.text_config.max_position_embeddings
    for name, module in model.named_modules():
        # RoBERTa counts positions from its padding index: AltCLIP's 514 positions take 512 tokens.
        padding = getattr(module, "padding_idx", None)
        if name.endswith("position_embeddings") and padding is not None:
            limit = min(limit, module.num_embeddings - padding - 1)
    return int(min(limit, tokenizer.model_max_length))  # 1e30 if the tokenizer has no limit
