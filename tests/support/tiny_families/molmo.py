"""Ai2's Molmo 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_models import CHAT, SQUARE, save, tokenizer

MARKS = (
    "<|image|>",
    "<|video|>",
    "<im_patch>",
    "<im_col>",
    "<im_start>",
    "<low_res_im_start>",
    "<frame_start>",
    "<im_end>",
    "<frame_end>",
    "<im_low>",
)


def molmo2(folder: Path) -> Path:
    """Molmo 2: an image's tokens see one another and point at patches of all crops."""
    from transformers import (
        Molmo2Config,
        Molmo2ForConditionalGeneration,
        Molmo2ImageProcessor,
        Molmo2Processor,
        Molmo2VideoProcessor,
    )

    tok = tokenizer(MARKS, image_token="<|image|>", video_token="<|video|>")
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": 8,
    }
    vision: dict[str, Any] = {"image_size": [32, 32], "patch_size": 8}
    config = Molmo2Config(
        vision_config=sizes | vision | {"num_hidden_layers": 3, "num_position_embeddings": 16},
        adapter_config=sizes | {"vision_feature_layer": [-1, -2], "text_hidden_size": 32},
        text_config=sizes
        | {
            "num_hidden_layers": 2,
            "num_key_value_heads": 2,
            "vocab_size": len(tok),
            "additional_vocab_size": 8,
            "max_position_embeddings": 4096,
        },
        image_start_token_id=tok.convert_tokens_to_ids("<im_start>"),
        low_res_image_start_token_id=tok.convert_tokens_to_ids("<low_res_im_start>"),
        image_end_token_id=tok.convert_tokens_to_ids("<im_end>"),
        image_patch_id=tok.convert_tokens_to_ids("<im_patch>"),
        frame_start_token_id=tok.convert_tokens_to_ids("<frame_start>"),
        frame_end_token_id=tok.convert_tokens_to_ids("<frame_end>"),
    )
    processor = Molmo2Processor(
        image_processor=Molmo2ImageProcessor(
            size=SQUARE, patch_size=8, max_crops=4, overlap_margins=[0, 0], pooling_size=[2, 2]
        ),
        video_processor=Molmo2VideoProcessor(size=SQUARE, patch_size=8),
        tokenizer=tok,
        chat_template=CHAT.replace("IMAGE", "<|image|>"),
    )
    return save(Molmo2ForConditionalGeneration, config, processor, folder)
