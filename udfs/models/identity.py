"""The hashes that identify a model's content, and a scorer in the scores table."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path

from udfs.core import peft_adapters
from udfs.core.error_lines import one_line
from udfs.models.dual_encoder import is_dual_encoder
from udfs.models.model_config import ModelConfig, ModelError
from udfs.models.model_files import (
    LOCAL,
    ModelFiles,
    base_of_adapter,
    find_files,
    folder_with,
    is_folder,
)
from udfs.scoring import dual_encoder_scorer, prompts
from udfs.starter import model as starter

CARD_SUFFIXES = (".md", ".png")
REPORT_FILES = ("evaluation.json", "history.json", "matching.json", "recipe.json")
"""What `finetune` and `evaluate` write about a model, beside its weights. These files do not affect
scores, so they are not part of the scorer's id: a new card does not require scoring again."""

VERSION = "1"
VERSIONS = dict.fromkeys(
    ("gemma3", "gemma4", "lfm2_vl", "molmo2", "qwen3_5", "qwen3_5_moe"),
    "2",  # wrong before: in bfloat16, Molmo 2 in any dtype
)
"""Part of a scorer's hash, by family (`model_type`) where it is not VERSION: raise it with every
change that changes the scores of a family, so that they are not taken for those of before."""


@functools.cache
def identity(model: str, revision: str | None = None) -> tuple[str, str | None]:
    """What the driver must know about a model without loading it: the hash of its content and, for
    a hub id, the exact commit that all executors must load. Raises ModelError.

    A local folder is identified by the bytes of its files (except cards and figures), so a model
    that is retrained into the same folder counts as another scorer; a hub id by its commit; an
    adapter by its own files and its base.
    """
    if starter.is_starter(model):
        starter.folder_of(model)
        return hashlib.sha256(f"starter {starter.content_hash(model)}".encode()).hexdigest(), None
    if is_folder(model):
        folder_hash = _hash_folder(Path(model))
        if not peft_adapters.is_adapter(model):
            return folder_hash, None
        base, base_revision = base_of_adapter(Path(model))
        return hashlib.sha256(
            f"{folder_hash} {identity(base, base_revision)[0]}".encode()
        ).hexdigest(), None
    if model.startswith(LOCAL):
        raise ModelError(f"there is no model folder {model}")
    from huggingface_hub import HfApi

    try:
        commit = HfApi().model_info(model, revision=revision).sha
    except Exception as error:
        raise ModelError(
            f"model {model!r} is neither a local folder nor a hub id that can be reached:"
            f" {one_line(error)}"
        ) from error
    return hashlib.sha256(f"{model}@{commit}".encode()).hexdigest(), commit


def scorer_id(config: ModelConfig) -> str:
    """Twelve hex digits that change with everything that changes scores: weights, processor, chat
    template, prompt, dtype, caption length. Part of the key of the scores table."""
    content, commit = identity(config.model, config.revision)
    if is_dual_encoder(config.model, commit):
        limits = (config.dtype, str(config.max_caption_tokens))
        return _hash((content, dual_encoder_scorer.VERSION, *limits))
    files = find_files(config.model, commit)
    try:
        prompt = prompts.load_prompt(files.prompt).version()
    except prompts.PromptError as error:
        raise ModelError(str(error)) from error
    version = VERSIONS.get(_family(files), VERSION)
    return _hash((content, prompt, config.dtype, str(config.max_caption_tokens), version))


def _family(files: ModelFiles) -> str:
    """The `model_type` of a model, or of an adapter's base; empty where its config cannot be read,
    which loading will report."""
    try:
        path = folder_with("config.json", files.weights, files.load_options.get("revision"))
        config = json.loads((path / "config.json").read_text("utf-8"))
        return str(config.get("model_type", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def _hash(parts: tuple[str, ...]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _hash_folder(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(
        p for p in folder.rglob("*") if p.is_file() and _may_affect_scores(folder, p)
    ):
        digest.update(str(path.relative_to(folder)).encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _may_affect_scores(folder: Path, path: Path) -> bool:
    """Whether a file of a model folder may affect scores: every file may, except those known only
    to describe the model."""
    is_report = path.parent == folder and path.name in REPORT_FILES
    return not is_report and path.suffix not in CARD_SUFFIXES
