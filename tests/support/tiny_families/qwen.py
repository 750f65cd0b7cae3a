"""Alibaba's Qwen-VL, from version 2 on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_models import CHAT, save, text_config, tokenizer

QWEN_TOKENS = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
QWEN_SIZE = {"shortest_edge": 32 * 32, "longest_edge": 64 * 64}
QWEN_ROPE: dict[str, Any] = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
DEEPSTACK = {"deepstack_visual_indexes": [0]}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
LINEAR: dict[str, Any] = {
    "num_hidden_layers": 3,
    "layer_types": ["linear_attention", "linear_attention", "full_attention"],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}


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
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration
    from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLTextConfig

    types = (Qwen3VLTextConfig, Qwen3VLConfig, Qwen3VLForConditionalGeneration)
    return _qwen3(*types, folder, {}, DEEPSTACK)


def qwen3_vl_moe(folder: Path) -> Path:
    """Qwen3-VL with experts, of which each token takes some."""
    from transformers import Qwen3VLMoeConfig, Qwen3VLMoeForConditionalGeneration
    from transformers.models.qwen3_vl_moe.configuration_qwen3_vl_moe import Qwen3VLMoeTextConfig

    types = (Qwen3VLMoeTextConfig, Qwen3VLMoeConfig, Qwen3VLMoeForConditionalGeneration)
    return _qwen3(*types, folder, EXPERTS | {"decoder_sparse_step": 1}, DEEPSTACK)


def qwen3_5(folder: Path) -> Path:
    """Qwen3.5: layers of linear attention, whose state runs through the sequence."""
    from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration
    from transformers.models.qwen3_5.configuration_qwen3_5 import Qwen3_5TextConfig

    types = (Qwen3_5TextConfig, Qwen3_5Config, Qwen3_5ForConditionalGeneration)
    return _qwen3(*types, folder, LINEAR, {})


def qwen3_5_moe(folder: Path) -> Path:
    """Qwen3.5 with experts, one of which every token takes."""
    from transformers import Qwen3_5MoeConfig, Qwen3_5MoeForConditionalGeneration
    from transformers.models.qwen3_5_moe.configuration_qwen3_5_moe import Qwen3_5MoeTextConfig

    types = (Qwen3_5MoeTextConfig, Qwen3_5MoeConfig, Qwen3_5MoeForConditionalGeneration)
    text = LINEAR | EXPERTS | {"shared_expert_intermediate_size": 32}
    return _qwen3(*types, folder, text, {})


def _qwen3(
    text_type: type[Any],
    config_type: type[Any],
    model_type: type[Any],
    folder: Path,
    text: dict[str, Any],
    vision: dict[str, Any],
) -> Path:
    """A model of the generations from 3 on; `text` and `vision` add to its configuration."""
    from transformers import Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

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
    rope = QWEN_ROPE | {"mrope_interleaved": True, "partial_rotary_factor": 1.0}
    config = config_type(
        text_config=text_config(text_type, tok, head_dim=8, rope_parameters=rope, **text).to_dict(),
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 4,
            "out_hidden_size": 32,
            "patch_size": 8,
            "num_position_embeddings": 64,
            **vision,
        },
        **_qwen_ids(tok),
    )
    processor = Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=8, size=QWEN_SIZE),
        tokenizer=tok,
        video_processor=Qwen3VLVideoProcessor(patch_size=8),
        chat_template=CHAT.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>"),
    )
    return save(model_type, config, processor, folder)


def _qwen_ids(tok: Any) -> dict[str, Any]:
    names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    return dict(zip(names, map(tok.convert_tokens_to_ids, QWEN_TOKENS), strict=True))
