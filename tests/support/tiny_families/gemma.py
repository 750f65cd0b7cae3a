"""Google's Gemma 3 and 4."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_models import CHAT, SQUARE, VISION, save, text_config, tokenizer

LAYERS: dict[str, Any] = {
    "num_hidden_layers": 3,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    "head_dim": 8,
}
WIDE_WINDOW = 4096


def gemma3_wide_window(folder: Path) -> Path:
    """Gemma 3 whose window is wider than any sequence here: the usual case."""
    return gemma3(folder, window=WIDE_WINDOW)


def gemma3(folder: Path, window: int = 64) -> Path:
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
        text_config=text_config(Gemma3TextConfig, tok, sliding_window=window, **LAYERS),
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


def gemma4(folder: Path) -> Path:
    """Gemma 4: each layer has token embeddings of its own; an image's tokens are causal."""
    return _gemma4(folder, **LAYERS)


def gemma4_bidirectional(folder: Path) -> Path:
    """Gemma 4 whose image's tokens see one another."""
    return _gemma4(folder, **LAYERS, use_bidirectional_attention="vision")


def gemma4_shared_keys(folder: Path) -> Path:
    """Gemma 4 whose last two layers use the keys and values of earlier ones."""
    layers = LAYERS | {"num_hidden_layers": 4, "num_kv_shared_layers": 2}
    layers["layer_types"] = ["sliding_attention", "full_attention"] * 2
    return _gemma4(folder, **layers, use_bidirectional_attention="vision")


def _gemma4(folder: Path, **text: Any) -> Path:
    from transformers import (
        Gemma4AudioFeatureExtractor,
        Gemma4Config,
        Gemma4ForConditionalGeneration,
        Gemma4ImageProcessor,
        Gemma4Processor,
        Gemma4TextConfig,
        Gemma4VideoProcessor,
    )

    kinds = ("boi", "eoi", "image", "boa", "eoa", "audio")
    tokens: dict[str, Any] = {kind: f"<{kind}_token>" for kind in kinds}
    patches: dict[str, Any] = {"patch_size": 8, "pooling_kernel_size": 2}
    processor = Gemma4Processor(
        feature_extractor=Gemma4AudioFeatureExtractor(),
        image_processor=Gemma4ImageProcessor(**patches, max_soft_tokens=70),
        tokenizer=tokenizer(tuple(tokens.values()), **{f"{k}_token": v for k, v in tokens.items()}),
        video_processor=Gemma4VideoProcessor(**patches),
        image_seq_length=70,
        chat_template=CHAT.replace("IMAGE", tokens["image"]),
    )
    tok = processor.tokenizer  # the processor has added a token
    vision = VISION | patches | {"num_key_value_heads": 4, "head_dim": 8}
    config = Gemma4Config(
        vision_config=vision | {"position_embedding_size": 64},
        text_config=text_config(
            Gemma4TextConfig,
            tok,
            global_head_dim=8,
            sliding_window=WIDE_WINDOW,
            vocab_size_per_layer_input=len(tok),
            hidden_size_per_layer_input=8,
            **text,
        ).to_dict(),
        audio_config=None,
        video_token_id=tok.convert_tokens_to_ids("<|video|>"),
        **{f"{k}_token_id": tok.convert_tokens_to_ids(v) for k, v in tokens.items()},
    )
    return save(Gemma4ForConditionalGeneration, config, processor, folder)
