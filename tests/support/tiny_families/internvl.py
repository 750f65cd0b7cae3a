"""InternVL with language models other than Llama."""

from __future__ import annotations

from pathlib import Path

from tiny_models import CHAT, SQUARE, TILES, VISION, save, text_config, tokenizer


def internvl_qwen3(folder: Path) -> Path:
    """InternVL 3.5: Qwen3 inside, tiles by the picture's shape."""
    from transformers import (
        GotOcr2ImageProcessor,
        InternVLConfig,
        InternVLForConditionalGeneration,
        InternVLProcessor,
        InternVLVideoProcessor,
        InternVLVisionConfig,
        Qwen3Config,
    )

    tok = tokenizer(
        ("<img>", "</img>", "<IMG_CONTEXT>"),
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
    )
    config = InternVLConfig(
        vision_config=InternVLVisionConfig(**VISION, image_size=[32, 32], patch_size=[8, 8]),
        text_config=text_config(Qwen3Config, tok, head_dim=8),
        image_token_id=tok.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    processor = InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(**TILES),
        tokenizer=tok,
        video_processor=InternVLVideoProcessor(size=SQUARE),
        image_seq_length=4,
        chat_template=CHAT.replace("IMAGE", "<IMG_CONTEXT>\n"),
    )
    return save(InternVLForConditionalGeneration, config, processor, folder)
