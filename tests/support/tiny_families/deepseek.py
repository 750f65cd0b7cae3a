"""DeepSeek's DeepSeek-VL."""

from __future__ import annotations

from pathlib import Path

from tiny_models import CHAT, SQUARE, VISION, save, text_config, tokenizer


def deepseek_vl(folder: Path) -> Path:
    """DeepSeek-VL: SigLIP and Llama."""
    from transformers import (
        DeepseekVLConfig,
        DeepseekVLForConditionalGeneration,
        DeepseekVLImageProcessor,
        DeepseekVLProcessor,
        LlamaConfig,
        SiglipVisionConfig,
    )

    tok = tokenizer(image_token="<image>")
    config = DeepseekVLConfig(
        vision_config=SiglipVisionConfig(**VISION, image_size=32, patch_size=8),
        text_config=text_config(LlamaConfig, tok),
        image_token_id=tok.convert_tokens_to_ids("<image>"),
    )
    processor = DeepseekVLProcessor(
        image_processor=DeepseekVLImageProcessor(size=SQUARE),
        tokenizer=tok,
        num_image_tokens=16,
        chat_template=CHAT.replace("IMAGE", "<image>"),
    )
    return save(DeepseekVLForConditionalGeneration, config, processor, folder)
