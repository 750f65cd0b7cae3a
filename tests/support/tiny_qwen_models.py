"""Tiny randomly initialised models of Qwen's families, built on the spot like `tiny_models`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_models import CHAT, save, text_config, tokenizer

QWEN_TOKENS = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
QWEN_SIZE = {"shortest_edge": 32 * 32, "longest_edge": 64 * 64}
QWEN_ROPE: dict[str, Any] = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}


def qwen2_vl(folder: Path) -> Path:
    """Qwen2-VL: positions in three dimensions, as many tokens as the picture is large."""
    from transformers import (
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLImageProcessor,
        Qwen2VLProcessor,
        Qwen2VLVideoProcessor,
    )
    from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLTextConfig

    tok = tokenizer(QWEN_TOKENS, image_token=QWEN_TOKENS[0], video_token=QWEN_TOKENS[1])
    vision: dict[str, Any] = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4}
    config = Qwen2VLConfig(
        text_config=text_config(Qwen2VLTextConfig, tok, rope_parameters=QWEN_ROPE).to_dict(),
        vision_config=vision | {"patch_size": 8, "mlp_ratio": 2},
        **_qwen_ids(tok),
    )
    processor = Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=8, size=QWEN_SIZE),
        tokenizer=tok,
        video_processor=Qwen2VLVideoProcessor(patch_size=8),
        chat_template=CHAT.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>"),
    )
    return save(Qwen2VLForConditionalGeneration, config, processor, folder)


def qwen3_vl(folder: Path) -> Path:
    """Qwen3-VL: features of several vision layers go into the language model (deepstack)."""
    from transformers import (
        Qwen2VLImageProcessor,
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )
    from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLTextConfig

    start, end = QWEN_TOKENS[2:]
    tok = tokenizer(
        QWEN_TOKENS,
        image_token=QWEN_TOKENS[0],
        video_token=QWEN_TOKENS[1],
        vision_start_token=start,
        vision_end_token=end,
        vision_bos_token=start,
        vision_eos_token=end,
    )
    text = text_config(
        Qwen3VLTextConfig,
        tok,
        head_dim=8,
        rope_parameters=QWEN_ROPE | {"mrope_interleaved": True},
    )
    config = Qwen3VLConfig(
        text_config=text.to_dict(),
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 4,
            "out_hidden_size": 32,
            "patch_size": 8,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0],
        },
        **_qwen_ids(tok),
    )
    processor = Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=8, size=QWEN_SIZE),
        tokenizer=tok,
        video_processor=Qwen3VLVideoProcessor(patch_size=8),
        chat_template=CHAT.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>"),
    )
    return save(Qwen3VLForConditionalGeneration, config, processor, folder)


def _qwen_ids(tok: Any) -> dict[str, Any]:
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    return dict(zip(names, map(tok.convert_tokens_to_ids, QWEN_TOKENS), strict=True))
