"""Assembles the starter model from two pre-trained halves, and merges an adapter into it.

DINOv2-small (read by `udfs/starter/vision_tower.py`) and SmolLM2-135M-Instruct (read here, from
GGUF) are joined as an `InternVLForConditionalGeneration`. The weights of both are pre-trained; the
projector between them is random.
"""

import json
import re
from pathlib import Path
from typing import Any

from udfs.scoring import prompts
from udfs.starter import vision_tower
from udfs.starter.wheels import TEXT, VISION

IMAGE_TOKENS = 64  # 16 x 16 patches of 14 px, 2 x 2 of them joined by the pixel shuffle
PROJECTOR_SEED = 0
VISION_LAYERS = 9
"""The first 9 of DINOv2's 12 layers are used: their mean patch separates matching captions from
others better than that of 3, 6, 7, 8, 10, 11 or all 12."""
LANGUAGE_LAYERS = 10
"""The first 10 of SmolLM2's 30 layers are used: a third of the work in training and scoring. The
upper layers mainly sharpen the next word, which a score does not depend on."""

# Special tokens for code in SmolLM2's vocabulary that were never trained: their embeddings all lie
# within 1e-3 of one another. Renaming them leaves the embedding matrix unchanged.
RENAMED_TOKENS = {
    "<issue_start>": "<img>",
    "<issue_closed>": "</img>",
    "<jupyter_output>": "<IMG_CONTEXT>",
    "<jupyter_script>": "<VID_CONTEXT>",  # not "<video>", which occurs in web captions
}

# Without the roles and end-of-turn tokens of SmolLM2's own template: they carry nothing about a
# pair, and those after a question would have to be computed four times. The answer follows the
# question directly. The processor turns <IMG_CONTEXT> into 64 of them.
CHAT_TEMPLATE = """\
{%- for message in messages %}
    {{- '<|im_start|>' }}
    {%- if message['content'] is string %}
        {{- message['content'] }}
    {%- else %}
        {%- for part in message['content'] %}
            {%- if part['type'] == 'image' %}{{- '<IMG_CONTEXT>\\n' }}
            {%- elif part['type'] == 'text' %}{{- part['text'] }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
{%- endfor %}"""


def assemble(vision: Path, text: Path, folder: Path) -> None:
    """Write weights, configuration, tokenizer, processor and model card to `folder`."""
    import torch
    from transformers import (
        InternVLConfig,
        InternVLForConditionalGeneration,
        LlamaForCausalLM,
        PreTrainedTokenizerFast,
    )

    language_model = LlamaForCausalLM.from_pretrained(
        text.parent, gguf_file=text.name, dtype=torch.float32
    )
    tokenizer = _tokenizer(
        PreTrainedTokenizerFast.from_pretrained(text.parent, gguf_file=text.name)
    )
    text_config = language_model.config.to_dict()
    text_config["pad_token_id"] = tokenizer.pad_token_id
    text_config["num_hidden_layers"] = LANGUAGE_LAYERS
    # From here on the weights are plain float32, without a trace of the file they were read from.
    for origin in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        text_config.pop(origin, None)
    config = InternVLConfig(
        vision_config=vision_tower.config(VISION_LAYERS),
        text_config=text_config,
        image_token_id=tokenizer.context_image_token_id,
        image_seq_length=IMAGE_TOKENS,
        tie_word_embeddings=True,
        dtype="float32",
    )
    # Meta device: no memory or random numbers for the 157M weights, which are replaced anyway.
    with torch.device("meta"):
        model = InternVLForConditionalGeneration(config)
    state = {"lm_head.weight": language_model.lm_head.weight}
    language_model.model.layers = language_model.model.layers[:LANGUAGE_LAYERS]
    for prefix, part in (
        ("model.language_model", language_model.model.state_dict()),
        ("model.vision_tower", vision_tower.weights(vision, VISION_LAYERS)),
        ("model.multi_modal_projector", _random_projector(model)),
    ):
        state |= {f"{prefix}.{name}": tensor for name, tensor in part.items()}
    model.load_state_dict(state, strict=True, assign=True)
    model.tie_weights()
    for token in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(model.generation_config, token, getattr(tokenizer, token))
    model.save_pretrained(folder)
    _processor(tokenizer).save_pretrained(folder)
    (folder / "README.md").write_text(_card(_millions(model), None), encoding="utf-8")


def merge(base: Path, adapter: Path, folder: Path, adapter_card: str) -> None:
    """Write the base with an adapter merged into its weights as an ordinary model folder. Its model
    card includes `adapter_card`, the adapter's own ("" if it has none)."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from udfs.core import peft_adapters
    from udfs.core.checked_weights import load_checked

    model = load_checked(AutoModelForImageTextToText, base, dtype=torch.float32)
    merged = peft_adapters.merged(model, adapter)
    merged.save_pretrained(folder)
    AutoProcessor.from_pretrained(base).save_pretrained(folder)
    prompts.save_prompt(prompts.load_prompt(adapter), folder)
    (folder / "README.md").write_text(_card(_millions(merged), adapter_card), encoding="utf-8")


def _millions(model: Any) -> float:
    weights: int = sum(weight.numel() for weight in model.parameters())
    return weights / 1e6


def _random_projector(model: Any) -> dict[str, Any]:
    """Random weights for the model's projector, the same on every machine; the global random state
    is not used.

    Uniform within 1 / sqrt(inputs), PyTorch's default for a linear layer: the image tokens then are
    about as large (root mean square 0.2) as SmolLM2's embeddings (0.14).
    """
    import torch

    generator = torch.Generator().manual_seed(PROJECTOR_SEED)
    state = {}
    for name, empty in sorted(model.model.multi_modal_projector.state_dict().items()):
        if name.endswith("bias"):
            state[name] = torch.zeros(empty.shape)
        elif name == "layer_norm.weight":
            state[name] = torch.ones(empty.shape)
        else:
            uniform = torch.rand(empty.shape, generator=generator) * 2 - 1
            state[name] = uniform * empty.shape[1] ** -0.5
    return state


def _tokenizer(loaded: Any) -> Any:
    """SmolLM2's original tokenizer, with the image tokens renamed."""
    from tokenizers import Tokenizer, pre_tokenizers

    spec = json.loads(loaded.backend_tokenizer.to_str())
    vocabulary = spec["model"]["vocab"]
    spec["model"]["vocab"] = {RENAMED_TOKENS.get(k, k): v for k, v in vocabulary.items()}
    for token in spec["added_tokens"]:
        token["content"] = RENAMED_TOKENS.get(token["content"], token["content"])
    backend = Tokenizer.from_str(json.dumps(spec))
    # The GGUF reader omits that "smollm" first splits text into single digits and the rest.
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    start, end, context, video = RENAMED_TOKENS.values()
    return type(loaded)(
        tokenizer_object=backend,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        unk_token="<|endoftext|>",
        # SmolLM2 pads with <|im_end|>: a loss that skips padding would never learn to stop.
        pad_token="<|endoftext|>",
        model_max_length=8192,
        clean_up_tokenization_spaces=False,
        extra_special_tokens={
            "start_image_token": start,
            "end_image_token": end,
            "context_image_token": context,
            "video_token": video,
        },
    )


def _processor(tokenizer: Any) -> Any:
    from transformers import InternVLProcessor

    image_processor, video_processor = vision_tower.processors()
    return InternVLProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        video_processor=video_processor,
        image_seq_length=IMAGE_TOKENS,
        chat_template=CHAT_TEMPLATE,
    )


def _card(millions: float, adapter_card: str | None) -> str:
    """The model card; `adapter_card` is the adapter's own ("" if it has none), or None if there is
    no adapter."""
    if adapter_card is None:
        state = (
            "**No score training: its scores are not meaningful.** The projector between the two"
            "\nhalves is random, so it cannot see; it is a real model of realistic shape, and the"
            " place where\nfine-tuning starts."
        )
        projector, adapter = f"random, seed {PROJECTOR_SEED}", ""
    else:
        state = (
            "Trained to score with `mlm-filter finetune`: the adapter that mlm-filter ships is"
            " merged into\nits weights. Small, and trained on few kinds of pictures: see below for"
            " what it can do."
        )
        projector, adapter = "trained with the adapter", ", adapter merged in"
    section = re.sub(r"\A---\n.*?\n---\n", "", adapter_card or "", flags=re.DOTALL)
    section = re.sub(r"^#", "##", section, flags=re.MULTILINE)
    return f"""---
license: apache-2.0
pipeline_tag: image-text-to-text
---
# Starter model of mlm-filter

{millions:.0f}M parameters, float32. {state}

| part | weights | taken from | licence |
|---|---|---|---|
| vision tower | the first {VISION_LAYERS} of 12 layers of DINOv2-small, with its final norm, \
224 px, 16 x 16 patches | `{VISION.wheel}=={VISION.version}`, \
`{VISION.path}` | wheel: MIT; DINOv2: Apache-2.0 |
| projector | {projector}; pixel shuffle to {IMAGE_TOKENS} image tokens | | |
| language model | the first {LANGUAGE_LAYERS} of 30 layers of SmolLM2-135M-Instruct, from 4-bit \
(Q4_1) to float32{adapter} | `{TEXT.wheel}=={TEXT.version}`, `{TEXT.path}` | Apache-2.0 |

SHA-256 of the two files:

- `{VISION.sha256}`
- `{TEXT.sha256}`

Changed from the originals: position embeddings resampled from 37 x 37 to 16 x 16; the upper
layers of both left out; four special tokens that SmolLM2 never used renamed for images;
padding with `<|endoftext|>`; no system prompt.
{section}"""
