"""Loading a model, once a process, on the right device.

`torch` and `transformers` take seconds to import and gigabytes once a model is loaded: nothing here
happens at import, only when the first pair needs it. The cache holds one model, keyed by the
frozen configuration; a worker that is reused for many tasks loads it once.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from udfs import prompts, starter
from udfs.scorer import Scorer

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

DType = Literal["auto", "float32", "bfloat16", "float16"]
How = Literal["auto", "one_pass", "prefix_cache", "four_passes"]


class ModelError(RuntimeError):
    """The model cannot be had or cannot be used; the message names it and says why."""


@dataclass(frozen=True)
class ModelConfig:
    """What decides a score, and how fast it comes.

    `model` is a local folder, a hub id, or "starter"; `revision` a hub commit (None: the newest).
    `dtype` "auto" is float32 on a CPU and bfloat16 (else float16) on a GPU. `how`, `batch_rows` and
    `batch_tokens` do not change scores; see `Scorer`.
    """

    model: str = starter.STARTER
    revision: str | None = None
    dtype: DType = "auto"
    max_caption_tokens: int = 512
    how: How = "auto"
    batch_rows: int = 16
    batch_tokens: int = 8192


_lock = threading.Lock()
_loaded: tuple[ModelConfig, str, Scorer] | None = None


def scorer(config: ModelConfig, device: str = "cpu", threads: int | None = None) -> Scorer:
    """Return this process's scorer for `config`, loading it at the first call.

    `device` is "cpu" or an explicit "cuda:i" ("cuda" alone would put all tasks on the first GPU);
    `threads` how many CPU threads the model may use. Raises ModelError.
    """
    global _loaded
    with _lock:
        if _loaded is not None and _loaded[:2] == (config, device):
            return _loaded[2]
        _loaded = None  # free the old model before the new one needs its room
        loaded = load(config, device, threads)
        _loaded = (config, device, loaded)
        return loaded


def load(config: ModelConfig, device: str = "cpu", threads: int | None = None) -> Scorer:
    """Load model, processor and prompt into a new scorer. Raises ModelError."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    if threads is not None:
        torch.set_num_threads(threads)
    folder = str(starter.ensure()) if config.model == starter.STARTER else config.model
    where = {"revision": config.revision} if config.revision and not _is_folder(folder) else {}
    try:
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False, **where)
        model = AutoModelForImageTextToText.from_pretrained(
            folder,
            dtype=_dtype(config.dtype, device),
            trust_remote_code=False,
            use_safetensors=True,  # pickled weights run code when they are read
            **where,
        )
        torch.nn.Module.to(model, device)
        model.eval()
        prompt = prompts.load_prompt(_prompt_folder(folder, config.revision))
        return Scorer(
            model,
            processor,
            prompt,
            how=config.how,
            max_caption_tokens=config.max_caption_tokens,
            batch_rows=config.batch_rows,
            batch_tokens=config.batch_tokens,
        )
    except torch.OutOfMemoryError as error:
        raise ModelError(f"model {config.model!r} does not fit on {device}: {error}") from error
    except (OSError, ValueError, ImportError, AttributeError) as error:
        raise ModelError(f"cannot load model {config.model!r}: {error}") from error


@functools.cache
def identity(model: str, revision: str | None = None) -> tuple[str, str | None]:
    """What the driver must know of a model without loading it: the hash of its content and, for a
    hub id, the exact commit that all executors shall load. Raises ModelError.

    A local folder is identified by the bytes of its files, so that a model trained anew in the
    same place counts as another scorer; a hub id by its commit.
    """
    if model == starter.STARTER:
        model = str(starter.ensure())
    if _is_folder(model):
        return _hash_folder(Path(model)), None
    if model.startswith(("/", "./", "../", "~")):
        raise ModelError(f"there is no model folder {model}")
    from huggingface_hub import HfApi

    try:
        commit = HfApi().model_info(model, revision=revision).sha
    except Exception as error:
        reason = str(error).split("\n")[0]
        raise ModelError(
            f"model {model!r} is neither a local folder nor a hub id that can be reached: {reason}"
        ) from error
    return hashlib.sha256(f"{model}@{commit}".encode()).hexdigest(), commit


def scorer_id(config: ModelConfig) -> str:
    """Twelve hex digits that change with anything that changes scores: weights, processor, chat
    template, prompt, dtype, length of captions. Part of the key of the scores table."""
    content, commit = identity(config.model, config.revision)
    folder = str(starter.ensure()) if config.model == starter.STARTER else config.model
    prompt = prompts.load_prompt(_prompt_folder(folder, commit)).version()
    parts = (content, prompt, config.dtype, str(config.max_caption_tokens), "1")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _prompt_folder(model: str, revision: str | None) -> Path:
    """The folder in which the model's prompt file lies, if it has one."""
    if _is_folder(model):
        return Path(model)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(model, prompts.PROMPT_FILE, revision=revision)).parent
    except EntryNotFoundError:
        return Path("/nonexistent")


def _is_folder(model: str) -> bool:
    return Path(model).is_dir()


def _hash_folder(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix != ".md"):
        digest.update(str(path.relative_to(folder)).encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _dtype(name: DType, device: str) -> torch.dtype:
    import torch

    if name != "auto":
        return {
            "float32": torch.float32,
            "bfloat16": torch.bfloat16,
            "float16": torch.float16,
        }[name]
    if not device.startswith("cuda"):
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
