"""Mistral's Mistral 3 and Pixtral."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_models import CHAT, VISION, save, text_config, tokenizer

TOKENS: dict[str, Any] = {
    "image_token": "[IMG]",
    "image_break_token": "[IMG_BREAK]",
    "image_end_token": "[IMG_END]",
}
MARKS = tuple(TOKENS.values())


def towers(tok: Any) -> dict[str, Any]:
    """What both families have in their configurations: Pixtral's vision tower, and Mistral."""
    from transformers import MistralConfig, PixtralVisionConfig

    vision: dict[str, Any] = VISION | {"image_size": 64, "patch_size": 8, "head_dim": 8}
    return {
        "vision_config": PixtralVisionConfig(**vision),
        "text_config": text_config(MistralConfig, tok, head_dim=8),
        "image_token_index": tok.convert_tokens_to_ids("[IMG]"),
    }


def mistral3(folder: Path) -> Path:
    """Mistral 3: Pixtral's vision tower, rows of an image parted by tokens of their own."""
    from transformers import (
        Mistral3Config,
        Mistral3ForConditionalGeneration,
        PixtralImageProcessor,
        PixtralProcessor,
    )

    tok = tokenizer(MARKS, **TOKENS)
    config = Mistral3Config(
        **towers(tok),
        spatial_merge_size=2,
        vision_feature_layer=-1,
    )
    processor = PixtralProcessor(
        image_processor=PixtralImageProcessor(
            size={"longest_edge": 64}, patch_size={"height": 16, "width": 16}
        ),
        tokenizer=tok,
        patch_size=8,
        spatial_merge_size=2,
        chat_template=CHAT.replace("IMAGE", "[IMG]"),
    )
    return save(Mistral3ForConditionalGeneration, config, processor, folder)


def pixtral(folder: Path) -> Path:
    """Pixtral: LLaVA's code with Pixtral's vision tower and Mistral."""
    from transformers import (
        LlavaConfig,
        LlavaForConditionalGeneration,
        PixtralImageProcessor,
        PixtralProcessor,
    )

    tok = tokenizer(MARKS, **TOKENS)
    config = LlavaConfig(
        **towers(tok),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    processor = PixtralProcessor(
        image_processor=PixtralImageProcessor(
            size={"longest_edge": 64}, patch_size={"height": 8, "width": 8}
        ),
        tokenizer=tok,
        patch_size=8,
        chat_template=CHAT.replace("IMAGE", "[IMG]"),
    )
    return save(LlavaForConditionalGeneration, config, processor, folder)
