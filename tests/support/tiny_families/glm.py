"""Zhipu's GLM-4V."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_models import CHAT, save, text_config, tokenizer

KINDS = ("image", "video", "image_start", "image_end", "video_start", "video_end")
ROPE: dict[str, Any] = {
    "rope_type": "default",
    "mrope_section": [1, 1, 2],
    "rope_theta": 1e4,
    "partial_rotary_factor": 1.0,
}


def glm4v(folder: Path) -> Path:
    """GLM-4V: positions in three dimensions, as many tokens as the picture is large."""
    from transformers import (
        Glm4vConfig,
        Glm4vForConditionalGeneration,
        Glm4vImageProcessor,
        Glm4vProcessor,
        Glm4vTextConfig,
        Glm4vVideoProcessor,
    )

    tokens = {kind: f"<|{kind}|>" for kind in KINDS}
    tok = tokenizer(
        tuple(tokens.values()), image_token=tokens["image"], video_token=tokens["video"]
    )
    ids: dict[str, Any] = {
        f"{kind}_token_id": tok.convert_tokens_to_ids(token) for kind, token in tokens.items()
    }
    config = Glm4vConfig(
        text_config=text_config(Glm4vTextConfig, tok, rope_parameters=ROPE).to_dict(),
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "num_heads": 4,
            "image_size": 64,
            "patch_size": 8,
            "out_hidden_size": 32,
            "intermediate_size": 64,
        },
        **ids,
    )
    sizes: dict[str, Any] = {
        "patch_size": 8,
        "size": {"shortest_edge": 32 * 32, "longest_edge": 2 * 64 * 64},
    }
    picture = f"{tokens['image_start']}{tokens['image']}{tokens['image_end']}"
    processor = Glm4vProcessor(
        image_processor=Glm4vImageProcessor(**sizes),
        tokenizer=tok,
        video_processor=Glm4vVideoProcessor(**sizes),
        chat_template=CHAT.replace("IMAGE", picture),
    )
    return save(Glm4vForConditionalGeneration, config, processor, folder)
