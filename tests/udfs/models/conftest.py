"""A tiny model to break, and how a model that is refused says so."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_models

from udfs.models import mlm
from udfs.models.model_config import ModelConfig, ModelError


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.llava(tmp_path_factory.mktemp("llava"))


@pytest.fixture
def copy(llava: Path, tmp_path: Path) -> Path:
    """A copy of the model `llava`, to be changed."""
    return Path(shutil.copytree(llava, tmp_path / "model"))


@pytest.fixture(scope="session")
def edit_json() -> Callable[..., None]:
    """edit_json(path, key=value, ...)"""

    def edit(path: Path, **changed: Any) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | changed))

    return edit


@pytest.fixture(scope="session")
def edit_tensors() -> Callable[[Path, Callable[[dict[str, Any]], dict[str, Any]]], None]:
    """edit_tensors(path, change): tensors by name -> those to be written instead"""

    def edit(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        from safetensors.torch import load_file, save_file

        save_file(change(load_file(path)), path, {"format": "pt"})

    return edit


@pytest.fixture(scope="session")
def refused() -> Callable[..., str]:
    """refused(folder): the one line of a folder that is refused, which is called X there."""

    def refuse(folder: Path, load: Callable[[ModelConfig], Any] = mlm.load) -> str:
        with pytest.raises(ModelError) as raised:
            load(ModelConfig(str(folder)))
        said = str(raised.value)
        assert 0 < len(said) < 700
        assert said.isprintable()  # no line breaks, no colours
        return said.replace(str(folder), "X")

    return refuse
