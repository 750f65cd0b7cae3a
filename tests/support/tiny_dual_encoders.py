"""Builds tiny randomly initialised dual encoders of transformers' own classes, no downloads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tiny_models import save, tokenizer


def _text_tower_tokenizer(max_tokens: int) -> Any:
    """The byte tokenizer used as CLIP's is: <bos> and <eos> around at most `max_tokens` tokens."""
    from tokenizers.processors import TemplateProcessing

    tok = tokenizer()
    tok.eos_token, tok.model_max_length, tok.padding_side = "<eos>", max_tokens, "right"
    ids = [(name, tok.convert_tokens_to_ids(name)) for name in ("<bos>", "<eos>")]
    tok.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=ids
    )
    return tok


_TOWER: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def clip(folder: Path) -> Path:
    """CLIP: a causal text tower of 77 tokens whose embedding is that of the first <eos>."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

    tok = _text_tower_tokenizer(77)
    text = _TOWER | {
        "vocab_size": len(tok),
        "max_position_embeddings": 77,
        "bos_token_id": tok.bos_token_id,
        "eos_token_id": tok.eos_token_id,
        "pad_token_id": tok.pad_token_id,
    }
    config = CLIPConfig(
        text_config=text,
        vision_config=_TOWER | {"image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    image_processor = CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    return save(CLIPModel, config, CLIPProcessor(image_processor, tok), folder)


def siglip(folder: Path) -> Path:
    """SigLIP: a text tower without a mask; its embedding is always that of the 64th, last token."""
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel, SiglipProcessor

    tok = _text_tower_tokenizer(64)
    tok.model_input_names = ["input_ids"]
    config = SiglipConfig(
        text_config=_TOWER
        | {"vocab_size": len(tok), "max_position_embeddings": 64, "projection_size": 32},
        vision_config=_TOWER | {"image_size": 32, "patch_size": 8},
    )
    image_processor = SiglipImageProcessor(size={"height": 32, "width": 32})
    return save(SiglipModel, config, SiglipProcessor(image_processor, tok), folder)


def baseline_towers() -> Any:
    """Random towers of the baseline's two kinds, in the form of `udfs.baseline.model.towers`."""
    import torch
    from transformers import (
        BertConfig,
        BertModel,
        GotOcr2ImageProcessor,
        InternVLVisionConfig,
        InternVLVisionModel,
    )

    from udfs.baseline.model import Towers

    tok = _text_tower_tokenizer(64)
    size = {"height": 32, "width": 32}
    image_processor = GotOcr2ImageProcessor(
        size=size, crop_to_patches=False, min_patches=1, max_patches=1
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vision = InternVLVisionModel(
            InternVLVisionConfig(
                **_TOWER, image_size=[32, 32], patch_size=[8, 8], use_mean_pooling=False
            )
        )
        text = BertModel(BertConfig(**_TOWER, vocab_size=len(tok)), add_pooling_layer=False)
        for model in (vision, text):
            for name, parameter in model.named_parameters():
                if parameter.ndim > 1 and "norm" not in name:
                    parameter.data.normal_(0, 0.15)
    return Towers(vision.eval(), image_processor, text.eval(), tok)


DUAL_ENCODERS: dict[str, Callable[[Path], Path]] = {"clip": clip, "siglip": siglip}
