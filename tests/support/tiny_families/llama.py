"""Meta's Llama 4."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_models import CHAT, SQUARE, VISION, save, text_config, tokenizer

MARKS = (
    "<|image|>",
    "<|image_start|>",
    "<|image_end|>",
    "<|patch|>",
    "<|tile_x_separator|>",
    "<|tile_y_separator|>",
)


def llama4(folder: Path) -> Path:
    """Llama 4: experts, and layers that see a chunk of the sequence only."""
    from transformers import (
        Llama4Config,
        Llama4ForConditionalGeneration,
        Llama4ImageProcessor,
        Llama4Processor,
        Llama4TextConfig,
    )

    tok = tokenizer(MARKS)
    vision: dict[str, Any] = {
        "image_size": 32,
        "patch_size": 8,
        "intermediate_size": 128,
        "vision_output_dim": 32,
        "projector_input_dim": 32,
        "projector_output_dim": 32,
    }
    config = Llama4Config(
        vision_config=VISION | vision,
        text_config=text_config(
            Llama4TextConfig,
            tok,
            head_dim=8,
            num_hidden_layers=3,
            layer_types=["chunked_attention", "chunked_attention", "full_attention"],
            no_rope_layers=[1, 1, 0],
            num_local_experts=4,
            intermediate_size_mlp=64,
            interleave_moe_layer_step=2,
        ).to_dict(),
        boi_token_index=tok.convert_tokens_to_ids("<|image_start|>"),
        eoi_token_index=tok.convert_tokens_to_ids("<|image_end|>"),
        image_token_index=tok.convert_tokens_to_ids("<|patch|>"),
    )
    processor = Llama4Processor(
        image_processor=Llama4ImageProcessor(size=SQUARE, max_patches=4),
        tokenizer=tok,
        patch_size=8,
        chat_template=CHAT.replace("IMAGE", "<|image|>"),
    )
    return save(Llama4ForConditionalGeneration, config, processor, folder)
