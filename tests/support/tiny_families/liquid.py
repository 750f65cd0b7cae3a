"""Liquid AI's LFM2-VL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_models import CHAT, VISION, save, text_config, tokenizer


def lfm2_vl(folder: Path) -> Path:
    """LFM2-VL: layers of convolutions, which see a sequence's last tokens."""
    from transformers import (
        Lfm2Config,
        Lfm2VlConfig,
        Lfm2VlForConditionalGeneration,
        Lfm2VlImageProcessor,
        Lfm2VlProcessor,
        Siglip2VisionConfig,
    )

    start, end, thumbnail = "<|image_start|>", "<|image_end|>", "<|img_thumbnail|>"
    tok = tokenizer(
        (start, end, thumbnail),
        image_start_token=start,
        image_end_token=end,
        image_thumbnail=thumbnail,
    )
    config = Lfm2VlConfig(
        vision_config=Siglip2VisionConfig(
            **VISION, num_patches=64, patch_size=8, vision_use_head=False
        ),
        text_config=text_config(
            Lfm2Config, tok, num_hidden_layers=3, layer_types=["conv", "conv", "full_attention"]
        ),
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        downsample_factor=2,
        projector_hidden_size=32,
    )
    sizes: dict[str, Any] = {
        "downsample_factor": 2,
        "do_image_splitting": False,
        "min_image_tokens": 4,
        "max_image_tokens": 16,
        "encoder_patch_size": 8,
        "tile_size": 32,
        "max_num_patches": 64,
    }
    processor = Lfm2VlProcessor(
        image_processor=Lfm2VlImageProcessor(**sizes),
        tokenizer=tok,
        chat_template=CHAT.replace("IMAGE", "<image>"),
    )
    return save(Lfm2VlForConditionalGeneration, config, processor, folder)
