"""Finds a model's files: in a local folder, on the hub, or in an adapter's folder and its base."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from udfs.core import peft_adapters
from udfs.core.weight_files import WeightsError
from udfs.models.model_config import ModelError
from udfs.scoring import prompts
from udfs.starter import model as starter

LOCAL = ("/", "./", "../", "~")
"""How a path begins; a hub id never begins so."""


@dataclass(frozen=True)
class ModelFiles:
    """Where a model comes from: `weights` (folder or hub id, with the processor) and the
    `load_options` for them, the folder of an `adapter` to merge in, and the folder of the `prompt`.
    """

    weights: str
    load_options: dict[str, str]
    adapter: Path | None
    prompt: Path


def find_files(model: str, revision: str | None) -> ModelFiles:
    """Find the files of a model: a folder, a hub id, "starter", or an adapter and its base.

    Raises ModelError for an adapter whose base cannot be used.
    """
    folder = starter.folder_of(model)
    options = {"revision": revision} if revision and not is_folder(folder) else {}
    if not peft_adapters.is_adapter(folder_with(peft_adapters.ADAPTER_CONFIG, folder, revision)):
        return ModelFiles(folder, options, None, prompt_folder(folder, revision))
    if is_folder(folder):
        adapter = Path(folder)
    else:
        from huggingface_hub import snapshot_download

        adapter = Path(snapshot_download(folder, revision=revision))
    base, base_revision = base_of_adapter(adapter)
    base = starter.folder_of(base)
    if peft_adapters.is_adapter(folder_with(peft_adapters.ADAPTER_CONFIG, base, base_revision)):
        raise ModelError(f"the base model of the adapter {adapter} is an adapter itself: {base}")
    options = {"revision": base_revision} if base_revision and not is_folder(base) else {}
    return ModelFiles(base, options, adapter, adapter)


def base_of_adapter(adapter: Path) -> tuple[str, str | None]:
    """The base model (folder, hub id, "starter-base") of an adapter folder, and its commit."""
    try:
        base, revision = peft_adapters.base_of(adapter)
    except WeightsError as error:
        raise ModelError(f"cannot use the adapter {adapter}: {error}") from error
    if is_folder(base) and peft_adapters.is_adapter(base):
        raise ModelError(f"the base model of the adapter {adapter} is an adapter itself: {base}")
    if base.startswith(LOCAL) and not is_folder(base):
        raise ModelError(f"there is no model folder {base}, which the adapter {adapter} needs")
    return base, revision


def prompt_folder(model: str, revision: str | None) -> Path:
    """The folder with the model's prompt file, or one without if there is none."""
    return folder_with(prompts.PROMPT_FILE, model, revision)


def folder_with(name: str, model: str, revision: str | None) -> Path:
    """The folder with the model's file of this name, or one without if there is none."""
    if is_folder(model):
        return Path(model)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(model, name, revision=revision)).parent
    except EntryNotFoundError:
        return Path("/nonexistent")


def is_folder(model: str) -> bool:
    """Whether `model` is a local folder rather than a hub id."""
    return Path(model).is_dir()
