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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from udfs.baseline import model as baseline_model
from udfs.scoring import dual_encoder_scorer, prompts
from udfs.scoring.batching import PairScorer
from udfs.scoring.dual_encoder_scorer import DualEncoder
from udfs.scoring.mlm_scorer import Scorer
from udfs.starter import model as starter
from udfs.training import adapter as adapters

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

DType = Literal["auto", "float32", "bfloat16", "float16"]
How = Literal["auto", "one_pass", "prefix_cache", "four_passes"]

TOLD_SUFFIXES = (".md", ".png")
TOLD_FILES = ("evaluation.json", "history.json", "matching.json", "recipe.json")
"""What `finetune` and `evaluate` write about a model, beside its weights. It decides no score, so
it is no part of a scorer's id: a new card makes nobody score anew."""


class ModelError(RuntimeError):
    """The model cannot be had or cannot be used; the message names it and says why."""


@dataclass(frozen=True)
class ModelConfig:
    """What decides a score, and how fast it comes.

    `model` is a local folder, a hub id, "starter" or "starter-base"; `revision` a hub commit (None:
    the newest). It may hold an adapter, which names its base model (`udfs.training.adapter`).
    A dual encoder (`udfs.scoring.dual_encoder_scorer`) gives `clip_score`, any other model the four metrics.
    `dtype` "auto" is float32 on a CPU and bfloat16 (else float16) on a GPU. `how`, `batch_rows` and
    `batch_tokens` do not change scores; see `Scorer`. `how` is for an MLM only.
    """

    model: str = starter.STARTER
    revision: str | None = None
    dtype: DType = "auto"
    max_caption_tokens: int = 512
    how: How = "auto"
    batch_rows: int = 16
    batch_tokens: int = 8192


_lock = threading.Lock()
_loaded: tuple[ModelConfig, str, PairScorer] | None = None


def scorer(config: ModelConfig, device: str = "cpu", threads: int | None = None) -> PairScorer:
    """Return this process's scorer for `config`, an MLM's or a dual encoder's, loading it at the
    first call.

    `device` is "cpu" or an explicit "cuda:i" ("cuda" alone would put all tasks on the first GPU);
    `threads` how many CPU threads the model may use. Raises ModelError.
    """
    global _loaded
    with _lock:
        if _loaded is not None and _loaded[:2] == (config, device):
            return _loaded[2]
        _loaded = None  # free the old model before the new one needs its room
        load_it = load_dual_encoder if is_dual_encoder(config.model, config.revision) else load
        loaded: PairScorer = load_it(config, device, threads)
        _loaded = (config, device, loaded)
        return loaded


def load(config: ModelConfig, device: str = "cpu", threads: int | None = None) -> Scorer:
    """Load an MLM, its processor and its prompt into a new scorer. Raises ModelError."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    with _loading(config, device, threads):
        found = _parts(config.model, config.revision)
        folder, where = found.weights, found.where
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False, **where)
        model = AutoModelForImageTextToText.from_pretrained(
            folder,
            dtype=_dtype(config.dtype, device),
            trust_remote_code=False,
            use_safetensors=True,  # pickled weights run code when they are read
            **where,
        )
        if found.adapter is not None:
            model = adapters.merged(model, found.adapter)
        prompt = prompts.load_prompt(found.prompt)
        return Scorer(
            _ready(model, device),
            processor,
            prompt,
            how=config.how,
            max_caption_tokens=config.max_caption_tokens,
            batch_rows=config.batch_rows,
            batch_tokens=config.batch_tokens,
        )


def load_dual_encoder(
    config: ModelConfig, device: str = "cpu", threads: int | None = None
) -> DualEncoder:
    """Load a dual encoder and its processor into a new scorer. Raises ModelError."""
    from transformers import AutoModel, AutoProcessor

    folder, dtype = config.model, _dtype(config.dtype, device)
    where = {"revision": config.revision} if config.revision and not _is_folder(folder) else {}
    with _loading(config, device, threads):
        if baseline_model.is_baseline(Path(folder)):
            model, processor = baseline_model.load(Path(folder), dtype)
        else:
            processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False, **where)
            model = AutoModel.from_pretrained(
                folder, dtype=dtype, trust_remote_code=False, use_safetensors=True, **where
            )
        return DualEncoder(
            _ready(model, device),
            processor,
            max_caption_tokens=config.max_caption_tokens,
            batch_rows=config.batch_rows,
            batch_tokens=config.batch_tokens,
        )


def is_dual_encoder(model: str, revision: str | None = None) -> bool:
    """Whether the model gives `clip_score` and not the four metrics; reads its config file only."""
    if starter.is_starter(model):
        return False
    folder = _folder_with("config.json", model, revision)
    return baseline_model.is_baseline(folder) or dual_encoder_scorer.is_dual_encoder(folder)


@contextmanager
def _loading(config: ModelConfig, device: str, threads: int | None) -> Iterator[None]:
    """What goes wrong in it is a ModelError that names the model."""
    import torch
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ModelError(f"model {config.model!r} does not fit on {device}: {error}") from error
    except (OSError, ValueError, ImportError, AttributeError) as error:
        raise ModelError(f"cannot load model {config.model!r}: {error}") from error


def _ready(model: torch.nn.Module, device: str) -> torch.nn.Module:
    return model.to(device).eval()


@functools.cache
def identity(model: str, revision: str | None = None) -> tuple[str, str | None]:
    """What the driver must know of a model without loading it: the hash of its content and, for a
    hub id, the exact commit that all executors shall load. Raises ModelError.

    A local folder is identified by the bytes of its files (but for cards and figures), so that a
    model trained anew in the same place counts as another scorer; a hub id by its commit; an
    adapter by itself and its base.
    """
    if starter.is_starter(model):
        starter.folder_of(model)
        return hashlib.sha256(f"starter {starter.content(model)}".encode()).hexdigest(), None
    if _is_folder(model):
        own = _hash_folder(Path(model))
        if not adapters.is_adapter(model):
            return own, None
        base, base_revision = _base_of(Path(model))
        return hashlib.sha256(
            f"{own} {identity(base, base_revision)[0]}".encode()
        ).hexdigest(), None
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
    if is_dual_encoder(config.model, commit):
        limits = (config.dtype, str(config.max_caption_tokens))
        return _hash((content, dual_encoder_scorer.VERSION, *limits))
    folder = starter.folder_of(config.model)
    prompt = prompts.load_prompt(_prompt_folder(folder, commit)).version()
    parts = (content, prompt, config.dtype, str(config.max_caption_tokens), "1")
    return _hash(parts)


def _hash(parts: tuple[str, ...]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class _Parts:
    """Where a model comes from: `weights` (folder or hub id, with the processor) loaded with the
    options `where`, the folder of an `adapter` to merge into them, and that of the `prompt`."""

    weights: str
    where: dict[str, str]
    adapter: Path | None
    prompt: Path


def _parts(model: str, revision: str | None) -> _Parts:
    folder = starter.folder_of(model)
    pinned = {"revision": revision} if revision and not _is_folder(folder) else {}
    if not adapters.is_adapter(_folder_with(adapters.ADAPTER_CONFIG, folder, revision)):
        return _Parts(folder, pinned, None, _prompt_folder(folder, revision))
    if _is_folder(folder):
        adapter = Path(folder)
    else:
        from huggingface_hub import snapshot_download

        adapter = Path(snapshot_download(folder, revision=revision))
    base, base_revision = _base_of(adapter)
    base = starter.folder_of(base)
    pinned = {"revision": base_revision} if base_revision and not _is_folder(base) else {}
    return _Parts(base, pinned, adapter, adapter)


def _base_of(adapter: Path) -> tuple[str, str | None]:
    """The base model (folder, hub id, "starter-base") of an adapter folder, and its commit."""
    try:
        base, revision = adapters.base_of(adapter)
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot use the adapter {adapter}: {error}") from error
    if _is_folder(base) and adapters.is_adapter(base):
        raise ModelError(f"the base model of the adapter {adapter} is an adapter itself: {base}")
    return base, revision


def _prompt_folder(model: str, revision: str | None) -> Path:
    """The folder in which the model's prompt file lies, if it has one."""
    return _folder_with(prompts.PROMPT_FILE, model, revision)


def _folder_with(name: str, model: str, revision: str | None) -> Path:
    """The folder in which the model's file of this name lies, if it has one."""
    if _is_folder(model):
        return Path(model)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(model, name, revision=revision)).parent
    except EntryNotFoundError:
        return Path("/nonexistent")


def _is_folder(model: str) -> bool:
    return Path(model).is_dir()


def _hash_folder(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and _may_decide(folder, p)):
        digest.update(str(path.relative_to(folder)).encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _may_decide(folder: Path, path: Path) -> bool:
    """Whether a file of a model folder may change a score: all but what is known to tell about the
    model only. A file of an unknown name may."""
    told = path.suffix in TOLD_SUFFIXES or (path.parent == folder and path.name in TOLD_FILES)
    return not told


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
