"""Adapter folders as `peft` writes them: which base model they name, and merging them into it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ADAPTER_CONFIG = "adapter_config.json"


def is_adapter(folder: str | Path) -> bool:
    """Whether `folder` holds an adapter rather than a whole model."""
    return (Path(folder) / ADAPTER_CONFIG).is_file()


def base_of(folder: str | Path) -> tuple[str, str | None]:
    """The base model that an adapter names (a folder, a hub id or "starter-base") and its commit.

    Raises ValueError if the adapter's configuration names none.
    """
    path = Path(folder) / ADAPTER_CONFIG
    config = json.loads(path.read_text("utf-8"))
    base = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    if not base:
        raise ValueError(f"{path} names no base model")
    return str(base), config.get("revision")


def merged(model: Any, folder: str | Path) -> Any:
    """`model` with the adapter in `folder` merged into its weights, on the CPU."""
    from peft import PeftModel

    # Otherwise peft would load the adapter onto the first GPU, whichever device is wanted.
    return PeftModel.from_pretrained(model, str(folder), torch_device="cpu").merge_and_unload()
