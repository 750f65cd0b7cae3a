"""Adapter folders as `peft` writes them: which base model they name, and merging them into it."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

from udfs.core.checked_weights import FOREIGN, refuse_infinite, refuse_misfits
from udfs.core.error_lines import one_line
from udfs.core.weight_files import ADAPTER_CONFIG as ADAPTER_CONFIG
from udfs.core.weight_files import WeightsError, adapter_tensors, read_json_object

_SHAPES = re.compile(
    r"size mismatch for (\S+): copying a param with shape torch\.Size\((\[.*?\])\)"
    r".*?torch\.Size\((\[.*?\])\)"
)
"""How torch says that a tensor has not the shape that the model needs."""


def is_adapter(folder: str | Path) -> bool:
    """Whether `folder` holds an adapter rather than a whole model."""
    return (Path(folder) / ADAPTER_CONFIG).is_file()


def base_of(folder: str | Path) -> tuple[str, str | None]:
    """The base model that an adapter names (a folder, a hub id or "starter-base") and its commit.

    Raises WeightsError if the adapter's configuration names none.
    """
    path = Path(folder) / ADAPTER_CONFIG
    config = read_json_object(path)
    base, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not base or not isinstance(base, str):
        raise WeightsError(f"{path} names no base model")
    if revision is not None and not isinstance(revision, str):
        raise WeightsError(f"{path} names no commit of its base model, but {revision!r:.80}")
    return base, revision


def merged(model: Any, folder: str | Path) -> Any:
    """`model` with the adapter in `folder` merged into its weights, on the CPU.

    Raises WeightsError for a pickle, and for weights that do not fit the model: peft leaves random
    ones in the place of those that are missing.
    """
    from peft import PeftConfig, PeftModel

    folder = Path(folder)
    owner = f"the adapter {folder}"
    refuse_infinite(owner, adapter_tensors(folder).items())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they tell of is an error below
            config = PeftConfig.from_pretrained(str(folder))
            config.inference_mode = True
            adapted = PeftModel(model, config)
            loaded = adapted.load_adapter(
                str(folder),
                "default",
                # Otherwise peft would load it onto the first GPU, whichever device is wanted.
                torch_device="cpu",
                # As PeftModel.from_pretrained does, which does not return what it has loaded.
                key_mapping=getattr(model, "_checkpoint_conversion_mapping", {}),
            )
            refuse_misfits(owner, missing=loaded.missing_keys, unused=loaded.unexpected_keys)
            return adapted.merge_and_unload()
    except WeightsError:
        raise
    except Exception as error:
        raise WeightsError(f"{owner} {_misfit(error)}") from error


def _misfit(error: Exception) -> str:
    """What peft's error says of an adapter, in one line."""
    text = str(error)
    if isinstance(error, KeyError) and "." in text:
        return f"lacks the tensor {one_line(str(error.args[0]))}: the download is broken"
    if shapes := _SHAPES.search(text):
        name, found, needed = shapes.groups()
        return f"has a tensor of the wrong shape ({name} is {found}, not {needed}): {FOREIGN}"
    if "not found in the base model" in text or "No modules were targeted" in text:
        return f"changes modules that its base model does not have: {FOREIGN}"
    return f"does not fit its base model: {one_line(error)}"
