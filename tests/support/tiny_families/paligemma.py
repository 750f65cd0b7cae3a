"""Google's PaliGemma: prompts are bidirectional, answers causal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_models import CHAT, SQUARE, VISION, save, text_config, tokenizer


def paligemma(folder: Path) -> Path:
    """PaliGemma with Gemma."""
    from transformers import GemmaConfig

    return _paligemma(folder, GemmaConfig)


def paligemma2(folder: Path) -> Path:
    """PaliGemma 2: Gemma 2, whose layers are of two types, with a window wider than prompts."""
    from transformers import Gemma2Config

    layers = ["sliding_attention", "sliding_attention", "full_attention"]
    window: dict[str, Any] = {"sliding_window": 4096, "query_pre_attn_scalar": 8}
    return _paligemma(folder, Gemma2Config, num_hidden_layers=3, layer_types=layers, **window)


def _paligemma(folder: Path, text_type: type[Any], **text: Any) -> Path:
    from transformers import (
        PaliGemmaConfig,
        PaliGemmaForConditionalGeneration,
        PaliGemmaProcessor,
        SiglipImageProcessor,
        SiglipVisionConfig,
    )

    images = SiglipImageProcessor(size=SQUARE)
    images.image_seq_length = 16  # type: ignore[attr-defined]
    plain = tokenizer()
    plain.add_tokens([f"<loc{number:04d}>" for number in range(4)])
    processor = PaliGemmaProcessor(
        image_processor=images, tokenizer=plain, chat_template=CHAT.replace("IMAGE", "<image>")
    )
    tok = processor.tokenizer  # the processor has added tokens
    vision: dict[str, Any] = {
        "image_size": 32,
        "patch_size": 8,
        "vision_use_head": False,
        "projection_dim": 32,
    }
    config = PaliGemmaConfig(
        vision_config=SiglipVisionConfig(**VISION | vision),
        text_config=text_config(text_type, tok, head_dim=8, **text),
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        projection_dim=32,
        hidden_size=32,
    )
    return save(PaliGemmaForConditionalGeneration, config, processor, folder)
