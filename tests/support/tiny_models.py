"""Builds tiny randomly initialised models of four families: real code, no downloads.

Each builder writes an ordinary Hugging Face folder (weights, config, processor with chat template)
and returns its path. Text is encoded byte by byte, so every digit is one token and any text works.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

SPECIAL = ("<pad>", "<bos>", "<eos>", "<|im_start|>", "<|im_end|>", "<image>", "<video>")
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}IMAGE{% else %}{{ c['text'] }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
SQUARE = {"height": 32, "width": 32}
TILES: dict[str, Any] = {
    "size": SQUARE,
    "crop_to_patches": True,
    "min_patches": 1,
    "max_patches": 4,
}
"""Of an image processor that cuts a picture into squares."""


def tokenizer(extra: tuple[str, ...] = (), merges: bool = False, **named: str) -> Any:
    """A byte-level tokenizer; with `merges=True`, every number of up to three digits is one token,
    as in Llama 3."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    pairs: list[tuple[str, str]] = []
    if merges:
        for number in range(10, 1000):
            text = str(number)
            pairs.append((text[:-1], text[-1]))
            vocabulary[text] = len(vocabulary)
        pairs.sort(key=lambda pair: len(pair[0]))
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(t, special=True) for t in (*SPECIAL, *extra)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<bos>",
        eos_token="<|im_end|>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>", "video_token": "<video>", **named},
        padding_side="left",
    )


def text_config(config: type[Any], tok: Any, **more: Any) -> Any:
    """A tiny language model's configuration; `more` adds values or replaces them."""
    sizes = {
        "vocab_size": len(tok),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "pad_token_id": tok.pad_token_id,
        "bos_token_id": tok.bos_token_id,
        "eos_token_id": tok.eos_token_id,
    }
    return config(**sizes | more)


def save(model_type: type[Any], config: Any, processor: Any, folder: Path) -> Path:
    """Write a model with random weights and its processor; returns the folder."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model_type(config).eval()
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "norm" not in name:  # so that outputs are far from uniform
                parameter.data.normal_(0, 0.15)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def llava(folder: Path, merges: bool = False) -> Path:
    """CLIP vision tower, 2-layer projector, Llama."""
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    tok = tokenizer(merges=merges)
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=32,
        patch_size=8,
        projection_dim=32,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text_config(LlamaConfig, tok),
        image_token_index=tok.convert_tokens_to_ids("<image>"),
        vision_feature_select_strategy="default",
        vision_feature_layer=-1,
    )
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
        ),
        tokenizer=tok,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT.replace("IMAGE", "<image>\n"),
    )
    return save(LlavaForConditionalGeneration, config, processor, folder)


def qwen2_5_vl(folder: Path) -> Path:
    """Qwen2.5-VL: pictures of any size, positions in three dimensions."""
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )
    from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLTextConfig

    tok = tokenizer(
        ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"),
        image_token="<|image_pad|>",
        video_token="<|video_pad|>",
    )
    config = Qwen2_5_VLConfig(
        text_config=text_config(
            Qwen2_5_VLTextConfig,
            tok,
            rope_parameters={"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4},
        ).to_dict(),
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 4,
            "out_hidden_size": 32,
            "patch_size": 8,
            "window_size": 32,
            "fullatt_block_indexes": [1],
        },
        image_token_id=tok.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tok.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=tok.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=tok.convert_tokens_to_ids("<|vision_end|>"),
    )
    bounds = {"shortest_edge": 32 * 32, "longest_edge": 64 * 64}
    processor = Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(patch_size=8, size=bounds),
        tokenizer=tok,
        video_processor=Qwen2VLVideoProcessor(patch_size=8),
        chat_template=CHAT.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>"),
    )
    return save(Qwen2_5_VLForConditionalGeneration, config, processor, folder)


def internvl(folder: Path) -> Path:
    """InternVL: the starter model's family."""
    from transformers import (
        GotOcr2ImageProcessor,
        InternVLConfig,
        InternVLForConditionalGeneration,
        InternVLProcessor,
        InternVLVideoProcessor,
        InternVLVisionConfig,
        LlamaConfig,
    )

    tok = tokenizer(
        ("<img>", "</img>", "<IMG_CONTEXT>"),
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
    )
    vision = InternVLVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=[32, 32],
        patch_size=[8, 8],
    )
    config = InternVLConfig(
        vision_config=vision,
        text_config=text_config(LlamaConfig, tok),
        image_token_id=tok.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    processor = InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(
            size={"height": 32, "width": 32}, crop_to_patches=True, min_patches=1, max_patches=4
        ),
        tokenizer=tok,
        video_processor=InternVLVideoProcessor(size={"height": 32, "width": 32}),
        image_seq_length=4,
        chat_template=CHAT.replace("IMAGE", "<IMG_CONTEXT>\n"),
    )
    return save(InternVLForConditionalGeneration, config, processor, folder)


def idefics3(folder: Path) -> Path:
    """Idefics3 (SmolVLM's family): pictures split into tiles, a padded tile dimension."""
    from transformers import (
        Idefics3Config,
        Idefics3ForConditionalGeneration,
        Idefics3ImageProcessor,
        Idefics3Processor,
        LlamaConfig,
    )

    tags = [f"<row_{i + 1}_col_{j + 1}>" for i in range(6) for j in range(6)]
    tok = tokenizer(
        ("<fake_token_around_image>", "<end_of_utterance>", "<global-img>", *tags),
    )
    config = Idefics3Config(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 32,
            "patch_size": 8,
        },
        text_config=text_config(LlamaConfig, tok),
        image_token_id=tok.convert_tokens_to_ids("<image>"),
        scale_factor=2,
    )
    processor = Idefics3Processor(
        image_processor=Idefics3ImageProcessor(
            size={"longest_edge": 64}, max_image_size={"longest_edge": 32}
        ),
        tokenizer=tok,
        image_seq_len=4,
        chat_template=CHAT.replace("IMAGE", "<image>"),
    )
    return save(Idefics3ForConditionalGeneration, config, processor, folder)


FAMILIES: dict[str, Callable[[Path], Path]] = {
    "llava": llava,
    "qwen2_5_vl": qwen2_5_vl,
    "internvl": internvl,
    "idefics3": idefics3,
}
