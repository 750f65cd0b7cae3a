"""The files of a model or adapter folder before any of them is loaded: complete, whole, no pickles.

The libraries' own errors name no file ("incomplete metadata"), and where safetensors are missing
`peft` and `transformers` take a pickle, which runs what its author wanted.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from udfs.core.error_lines import one_line

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


class WeightsError(ValueError):
    """Weights are damaged, pickled or another model's; one line names the folder and says which."""


def check_model_folder(folder: Path) -> None:
    """Raise WeightsError unless `folder` holds a configuration and whole safetensors for it."""
    if (folder / ADAPTER_CONFIG).is_file():
        raise WeightsError(f"{folder} is an adapter, where a whole model is needed")
    check_config(folder)
    if any(folder.glob("shard-*-model-*-of-*.safetensors")):
        raise WeightsError(f"{folder} holds a distributed checkpoint: save it as {WEIGHTS}")
    if (folder / WEIGHTS).is_file():
        check_tensors_file(folder / WEIGHTS)
    elif (folder / INDEX).is_file():
        for shard in _shards(folder / INDEX):
            if not (folder / shard).is_file():
                raise WeightsError(
                    f"{folder} lacks {shard}, which {INDEX} names: a broken download"
                )
            check_tensors_file(folder / shard)
    else:
        _refuse_pickles(folder)
        raise WeightsError(f"{folder} has no weights: neither {WEIGHTS} nor {INDEX}")


def check_config(folder: Path) -> None:
    """Raise WeightsError unless `folder` has a configuration that names a model and no pickle."""
    config = read_json_object(folder / "config.json")
    if not isinstance(config.get("model_type"), str):
        raise WeightsError(f"{folder}/config.json names no model_type")
    # transformers takes this name over its own, and "adapter_model.bin" is one that it would load.
    named = config.get("transformers_weights", WEIGHTS)
    if named not in (WEIGHTS, INDEX):
        raise WeightsError(
            f"{folder}/config.json names other weights than {WEIGHTS}: {named!r:.80}"
        )


def adapter_tensors(folder: Path) -> dict[str, Any]:
    """The tensors of an adapter folder. Raises WeightsError for pickles, a damaged file or none."""
    path = folder / ADAPTER_WEIGHTS
    if not path.is_file():
        _refuse_pickles(folder)
        raise WeightsError(f"the adapter {folder} has no weights: no {ADAPTER_WEIGHTS}")
    return read_tensors(path)


def read_tensors(path: Path) -> dict[str, Any]:
    """All tensors of a safetensors file, on the CPU. Raises WeightsError."""
    from safetensors.torch import load_file

    check_tensors_file(path)
    return dict(load_file(path))


def check_tensors_file(path: Path) -> None:
    """Raise WeightsError unless `path` is a whole safetensors file: its header is read, and that it
    accounts for every byte."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            file.keys()
    except (OSError, ValueError, SafetensorError) as error:
        raise WeightsError(
            f"{path} is damaged or no safetensors file ({one_line(str(error))}): download it again"
        ) from error


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises WeightsError."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise WeightsError(f"{path.parent} has no {path.name}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is damaged: no JSON ({one_line(error)})") from error
    if not isinstance(found, dict):
        raise WeightsError(f"{path} is damaged: no JSON object")
    return found


def _shards(index: Path) -> list[str]:
    """The names of the files that an index lists."""
    read = read_json_object(index)
    tensors = read.get("weight_map")
    if not isinstance(tensors, dict) or not tensors or not isinstance(read.get("metadata"), dict):
        raise WeightsError(f"{index} is damaged: it lacks weight_map or metadata")
    shards = list(tensors.values())
    for shard in shards:
        if not isinstance(shard, str) or Path(shard).name != shard:
            raise WeightsError(f"{index} names a file that is not in its folder: {shard!r:.80}")
    return sorted(set(shards))


def _refuse_pickles(folder: Path) -> None:
    pickles = sorted(path.name for kind in _PICKLES for path in folder.glob(kind))
    if pickles:
        raise WeightsError(
            f"{folder} has pickled weights only ({pickles[0]}), which can run code and are never"
            " loaded: save them as safetensors"
        )
