"""Hugging Face's Idefics and SmolVLM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_models import CHAT, VISION, save, text_config, tokenizer


def smolvlm(folder: Path) -> Path:
    """SmolVLM: Idefics3's kind, with a processor for videos."""
    from transformers import (
        LlamaConfig,
        SmolVLMConfig,
        SmolVLMForConditionalGeneration,
        SmolVLMImageProcessor,
        SmolVLMProcessor,
        SmolVLMVideoProcessor,
    )

    tags = [f"<row_{i + 1}_col_{j + 1}>" for i in range(6) for j in range(6)]
    around, end, overview = "<fake_token_around_image>", "<end_of_utterance>", "<global-img>"
    tok = tokenizer(
        (around, end, overview, *tags),
        fake_image_token=around,
        global_image_token=overview,
        end_of_utterance_token=end,
    )
    config = SmolVLMConfig(
        vision_config=VISION | {"image_size": 32, "patch_size": 8},
        text_config=text_config(LlamaConfig, tok),
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    sizes: dict[str, Any] = {"size": {"longest_edge": 64}, "max_image_size": {"longest_edge": 32}}
    sampling = {"video_size": {"longest_edge": 32}, "fps": 1, "max_frames": 4}
    processor = SmolVLMProcessor(
        image_processor=SmolVLMImageProcessor(**sizes),
        tokenizer=tok,
        video_processor=SmolVLMVideoProcessor(**sizes | {"video_sampling": sampling}),
        image_seq_len=4,
        chat_template=CHAT.replace("IMAGE", "<image>"),
    )
    return save(SmolVLMForConditionalGeneration, config, processor, folder)


def idefics2(folder: Path) -> Path:
    """Idefics2: Mistral, and pictures that become a fixed number of tokens (a perceiver)."""
    from transformers import (
        Idefics2Config,
        Idefics2ForConditionalGeneration,
        Idefics2ImageProcessor,
        Idefics2Processor,
        MistralConfig,
    )

    around = "<fake_token_around_image>"
    tok = tokenizer((around, "<end_of_utterance>"), image_boundary_token=around)
    perceiver: dict[str, Any] = {
        "hidden_size": 32,
        "resampler_n_latents": 4,
        "resampler_depth": 1,
        "resampler_n_heads": 4,
        "resampler_head_dim": 8,
        "num_key_value_heads": 2,
    }
    config = Idefics2Config(
        vision_config=VISION | {"image_size": 32, "patch_size": 8},
        perceiver_config=perceiver,
        text_config=text_config(MistralConfig, tok),
        image_token_id=tok.convert_tokens_to_ids("<image>"),
    )
    processor = Idefics2Processor(
        image_processor=Idefics2ImageProcessor(size={"shortest_edge": 16, "longest_edge": 32}),
        tokenizer=tok,
        image_seq_len=4,
        chat_template=CHAT.replace("IMAGE", "<image>"),
    )
    return save(Idefics2ForConditionalGeneration, config, processor, folder)
