"""Cohere's Aya Vision and Command A Vision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_models import CHAT, TILES, VISION, save, text_config, tokenizer

LAYERS = {
    "num_hidden_layers": 3,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    "sliding_window": 4096,
}
MARKS = ("<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>")


def aya_vision(folder: Path) -> Path:
    """Aya Vision: SigLIP, Cohere 2 and tiles with names."""
    from transformers import (
        AyaVisionConfig,
        AyaVisionForConditionalGeneration,
        AyaVisionProcessor,
        Cohere2Config,
        GotOcr2ImageProcessor,
        SiglipVisionConfig,
    )

    tok = tokenizer((*MARKS, "TILE", "TILE_GLOBAL"))
    projector: dict[str, Any] = {
        "downsample_factor": 2,
        "adapter_layer_norm_eps": 1e-6,
        "alignment_intermediate_size": 64,
    }
    config = AyaVisionConfig(
        vision_config=SiglipVisionConfig(
            **VISION, image_size=32, patch_size=8, vision_use_head=False
        ),
        text_config=text_config(Cohere2Config, tok, **LAYERS),
        image_token_index=tok.convert_tokens_to_ids("<|IMG_PATCH|>"),
        **projector,
    )
    processor = AyaVisionProcessor(
        image_processor=GotOcr2ImageProcessor(**TILES),
        tokenizer=tok,
        patch_size=8,
        img_size=32,
        downsample_factor=2,
        chat_template=CHAT.replace("IMAGE", "<image>"),
    )
    return save(AyaVisionForConditionalGeneration, config, processor, folder)


def cohere2_vision(folder: Path) -> Path:
    """Command A Vision: SigLIP, Cohere 2 and tiles."""
    from transformers import (
        Cohere2Config,
        Cohere2VisionConfig,
        Cohere2VisionForConditionalGeneration,
        Cohere2VisionImageProcessor,
        Cohere2VisionProcessor,
        SiglipVisionConfig,
    )

    start, end, patch, line_break = MARKS
    tok = tokenizer(
        MARKS,
        boi_token=start,
        eoi_token=end,
        image_token=patch,
        img_line_break_token=line_break,
    )
    config = Cohere2VisionConfig(
        vision_config=SiglipVisionConfig(
            **VISION, image_size=32, patch_size=4, vision_use_head=False
        ),
        text_config=text_config(Cohere2Config, tok, **LAYERS),
        image_token_id=tok.convert_tokens_to_ids(patch),
        downsample_factor=2,
        alignment_intermediate_size=64,
    )
    processor = Cohere2VisionProcessor(
        image_processor=Cohere2VisionImageProcessor(**TILES | {"patch_size": 4}),
        tokenizer=tok,
        patch_size=4,
        downsample_factor=2,
        chat_template=CHAT.replace("IMAGE", patch),
    )
    return save(Cohere2VisionForConditionalGeneration, config, processor, folder)
