"""Adapter folders as `peft` writes them: which base model they name, and merging them into it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ADAPTER_CONFIG = "adapter_config.json"


def is_adapter(folder: str | Path) -> bool:
    """Whether `folder` holds an adapter and no whole model."""
    return (Path(folder) / ADAPTER_CONFIG).is_file()


def base_of(folder: str | Path) -> tuple[str, str | None]:
    """The base model that an adapter folder names (folder, hub id, "starter-base") and its commit.

    Raises ValueError where the configuration names none.
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

    # Else peft would read the adapter onto the first GPU, whichever one is meant.
    return PeftModel.from_pretrained(model, str(folder), torch_device="cpu").merge_and_unload()
