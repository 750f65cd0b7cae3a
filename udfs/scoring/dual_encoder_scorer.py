"""The other scorer: a dual encoder's image and text embeddings, and their cosine.

    scorer = loaded_model.scorer(ModelConfig("openai/clip-vit-base-patch32"))
    scorer.score([jpeg], ["A cat on a sofa."])[0].clip_score      # -1..1

The baseline that an MLM has to beat, and a signal of its own. Any CLIP-like model of transformers
(`DUAL_ENCODERS`), as the model's own `forward` computes it: no scale, no bias, no logits. The
answers, statuses and bounds are those of `udfs.scoring.mlm_scorer.Scorer`.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from udfs.inputs.captions import Encoder
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
"""`model_type` of the models whose `forward` gives `image_embeds` and `text_embeds` of pairs."""

VERSION = "dual-1"
"""Part of the scorer's hash: raise it with every change here that changes a cosine."""

# These read the text's meaning off the last position, padding or not: they were trained on texts
# padded to the full length, and know no others.
_FULL_LENGTH = ("siglip", "siglip2")


def is_dual_encoder(folder: Path) -> bool:
    """Whether the model whose `config.json` lies in `folder` is one of DUAL_ENCODERS."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False  # whoever loads the model says what is wrong with it
    return isinstance(config, dict) and config.get("model_type") in DUAL_ENCODERS


@dataclass(frozen=True)
class Pair:
    """One encoded pair: `ids` (L,) with the special tokens, not padded; `pixels` by name, (1, ...)
    each, as the image processor returns them."""

    ids: Tensor
    pixels: Mapping[str, Tensor]


class DualEncoder(PairScorer):
    """A loaded dual encoder with its processor.

    `model(input_ids=, pixel_values=, ...)` has to return `image_embeds` and `text_embeds`, (B, D)
    each. Texts of more tokens than the text tower takes (or than `max_caption_tokens`) are cut; the
    special tokens around them are kept. `batch_rows` and `batch_tokens` as in `Scorer`.

    Raises ValueError for a tokenizer whose special tokens cannot be told from a text's own.
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
        # An end token inside a caption would end it there.
        self._caption_tokens = Encoder(tokenizer, {*self._begin, *self._end})
        self.text_tokens = _text_tokens(model, tokenizer)
        room = self.text_tokens - len(self._begin) - len(self._end)
        self.max_caption_tokens = min(max_caption_tokens, room)
        pad = tokenizer.pad_token_id
        self._pad = pad if pad is not None else (tokenizer.eos_token_id or 0)
        self._masked = "attention_mask" in tokenizer.model_input_names
        # An image processor may tell more than the model asks for.
        self._asked = frozenset(inspect.signature(model.forward).parameters)
        self._full_length = model.config.model_type in _FULL_LENGTH or not self._masked

    def prepare(self, image: Any, caption: Any) -> Prepared:
        """Decode, clean and encode one pair; safe to call from several threads at once."""
        return batching.prepare(image, caption, "as_is", self._encode)

    def score_prepared(self, prepared: Sequence[Prepared]) -> list[Scored]:
        """Score prepared pairs in length-sorted micro-batches; answers in the order given."""
        return batching.score_prepared(prepared, self.limits, self.cosines)

    def cosines(self, pairs: list[Pair]) -> list[float]:
        """Cosine of the two embeddings of each pair of one batch; raises what the model raises."""
        import torch

        with torch.inference_mode():
            out = self.model(**self._inputs(pairs))
            image, text = out.image_embeds.float(), out.text_embeds.float()  # (B, D) each
            cosines = torch.nn.functional.cosine_similarity(image, text, dim=-1)
        return [float(cosine) for cosine in cosines.clamp(-1, 1)]

    def _inputs(self, pairs: list[Pair]) -> dict[str, Tensor]:
        """The model's inputs for one batch, text padded on the right to a length that the longest
        text's bucket decides: all rows of a batch share the bucket."""
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
        inputs = {"input_ids": ids} | ({"attention_mask": mask} if self._masked else {})
        for name in pairs[0].pixels:
            value = torch.cat([pair.pixels[name] for pair in pairs])
            inputs[name] = value.to(dtype) if value.is_floating_point() else value
        return {name: value.to(device) for name, value in inputs.items()}

    def _encode(self, picture: Any, text: str) -> Encoded:
        import torch

        ids, cut = self._caption_tokens(text, self.max_caption_tokens)
        pixels = self.processor.image_processor(images=[picture], return_tensors="pt")
        asked = {name: value for name, value in pixels.items() if name in self._asked}
        row = Pair(torch.tensor([*self._begin, *ids, *self._end]), asked)
        return Encoded(row, len(row.ids), len(ids) if cut else None)


def _special_tokens(tokenizer: Any) -> tuple[list[int], list[int]]:
    """What the tokenizer puts before and behind a text, e.g. [BOS] and [EOS]."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    for start in range(len(whole) - len(plain) + 1):
        if plain and whole[start : start + len(plain)] == plain:
            return list(whole[:start]), list(whole[start + len(plain) :])
    raise ValueError(f"its tokenizer turns 'a' into {plain} alone and {whole} with special tokens")


def _text_tokens(model: Any, tokenizer: Any) -> int:
    """How many tokens the text tower takes, special ones included."""
    most = model.config.text_config.max_position_embeddings
    for name, module in model.named_modules():
        # RoBERTa numbers positions from its padding token's on: AltCLIP's 514 are 512.
        padding = getattr(module, "padding_idx", None)
        if name.endswith("position_embeddings") and padding is not None:
            most = min(most, module.num_embeddings - padding - 1)
    return int(min(most, tokenizer.model_max_length))  # 1e30 where the tokenizer knows no limit
