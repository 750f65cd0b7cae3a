"""Tiny randomly initialised models of further families, built on the spot like `tiny_models`.

SmolVLM's processor needs num2words (the extra `smolvlm`).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiny_models
from tiny_models import CHAT, save, text_config, tokenizer
from tiny_qwen_models import qwen2_vl, qwen3_vl

VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
SQUARE = {"height": 32, "width": 32}
GRID = [[32, 64], [64, 32], [64, 64]]


def llava_siglip_qwen(folder: Path) -> Path:
    """LLaVA with SigLIP and Qwen2, as the paper's later checkpoints have it."""
    from transformers import (
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        Qwen2Config,
        SiglipImageProcessor,
        SiglipVisionConfig,
    )

    tok = tokenizer()
    config = LlavaConfig(
        vision_config=SiglipVisionConfig(**VISION, image_size=32, patch_size=8),
        text_config=text_config(Qwen2Config, tok),
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    processor = LlavaProcessor(
        image_processor=SiglipImageProcessor(size=SQUARE),
        tokenizer=tok,
        patch_size=8,
        vision_feature_select_strategy="full",
        chat_template=CHAT.replace("IMAGE", "<image>\n"),
    )
    return save(LlavaForConditionalGeneration, config, processor, folder)


def llava_next(folder: Path) -> Path:
    """LLaVA-NeXT: tiles by the picture's shape, and `image_newline` between their rows."""
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
        LlavaNextImageProcessor,
        LlavaNextProcessor,
    )

    tok = tokenizer()
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(**VISION, image_size=32, patch_size=8, projection_dim=32),
        text_config=text_config(LlamaConfig, tok),
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-2,
        image_grid_pinpoints=GRID,
    )
    processor = LlavaNextProcessor(
        image_processor=LlavaNextImageProcessor(
            size={"shortest_edge": 32}, crop_size=SQUARE, image_grid_pinpoints=GRID
        ),
        tokenizer=tok,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT.replace("IMAGE", "<image>\n"),
    )
    return save(LlavaNextForConditionalGeneration, config, processor, folder)


def llava_onevision(folder: Path) -> Path:
    """LLaVA-OneVision: SigLIP, Qwen2 and tiles."""
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        LlavaOnevisionImageProcessor,
        LlavaOnevisionProcessor,
        LlavaOnevisionVideoProcessor,
        Qwen2Config,
        SiglipVisionConfig,
    )

    tok = tokenizer()
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(
            **VISION, image_size=32, patch_size=8, vision_use_head=False
        ),
        text_config=text_config(Qwen2Config, tok),
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        video_token_index=tok.convert_tokens_to_ids("<video>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_grid_pinpoints=GRID,
        vision_aspect_ratio="anyres_max_9",
    )
    processor = LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(size=SQUARE, image_grid_pinpoints=GRID),
        tokenizer=tok,
        video_processor=LlavaOnevisionVideoProcessor(size=SQUARE),
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_9",
        chat_template=CHAT.replace("IMAGE", "<image>\n"),
    )
    return save(LlavaOnevisionForConditionalGeneration, config, processor, folder)


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
        image_processor=GotOcr2ImageProcessor(
            size=SQUARE, crop_to_patches=True, min_patches=1, max_patches=4
        ),
        tokenizer=tok,
        video_processor=InternVLVideoProcessor(size=SQUARE),
        image_seq_length=4,
        chat_template=CHAT.replace("IMAGE", "<IMG_CONTEXT>\n"),
    )
    return save(InternVLForConditionalGeneration, config, processor, folder)


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


def gemma3(folder: Path) -> Path:
    """Gemma 3: an image's tokens see one another, and some layers see a window only."""
    from transformers import (
        Gemma3Config,
        Gemma3ForConditionalGeneration,
        Gemma3ImageProcessor,
        Gemma3Processor,
        Gemma3TextConfig,
        SiglipVisionConfig,
    )

    texts = ("<start_of_image>", "<end_of_image>", "<image_soft_token>")
    tokens: dict[str, Any] = dict(zip(("boi", "eoi", "image"), texts, strict=True))
    tok = tokenizer(tuple(tokens.values()), **{f"{k}_token": v for k, v in tokens.items()})
    config = Gemma3Config(
        vision_config=SiglipVisionConfig(
            **VISION, image_size=32, patch_size=8, vision_use_head=False
        ),
        text_config=text_config(
            Gemma3TextConfig,
            tok,
            head_dim=8,
            sliding_window=64,
            layer_types=["sliding_attention", "full_attention"],
        ),
        mm_tokens_per_image=4,
        **{f"{k}_token_index": tok.convert_tokens_to_ids(v) for k, v in tokens.items()},
    )
    processor = Gemma3Processor(
        image_processor=Gemma3ImageProcessor(size=SQUARE),
        tokenizer=tok,
        image_seq_length=4,
        chat_template=CHAT.replace("IMAGE", "<start_of_image>"),
    )
    return save(Gemma3ForConditionalGeneration, config, processor, folder)


def mistral3(folder: Path) -> Path:
    """Mistral 3: Pixtral's vision tower, rows of an image parted by tokens of their own."""
    from transformers import (
        Mistral3Config,
        Mistral3ForConditionalGeneration,
        MistralConfig,
        PixtralImageProcessor,
        PixtralProcessor,
        PixtralVisionConfig,
    )

    tok = tokenizer(
        ("[IMG]", "[IMG_BREAK]", "[IMG_END]"),
        image_token="[IMG]",
        image_break_token="[IMG_BREAK]",
        image_end_token="[IMG_END]",
    )
    vision: dict[str, Any] = VISION | {"image_size": 64, "patch_size": 8, "head_dim": 8}
    config = Mistral3Config(
        vision_config=PixtralVisionConfig(**vision),
        text_config=text_config(MistralConfig, tok, head_dim=8),
        image_token_index=tok.convert_tokens_to_ids("[IMG]"),
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


FAMILIES: dict[str, Callable[[Path], Path]] = tiny_models.FAMILIES | {
    make.__name__: make
    for make in (
        llava_siglip_qwen,
        llava_next,
        llava_onevision,
        internvl_qwen3,
        smolvlm,
        qwen2_vl,
        qwen3_vl,
        gemma3,
        mistral3,
    )
}
"""Every family that this project can build without a hub, by name."""
