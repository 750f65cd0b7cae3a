"""This process's model: loaded once, and only if it is still the one that the run began with."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_models
from safetensors.numpy import load_file, save_file

from udfs.models import identity, loaded_model
from udfs.models.model_config import ModelConfig, ModelError


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that has loaded and hashed nothing, as an executor's is."""
    monkeypatch.setattr(loaded_model, "_loaded", None)
    identity.identity.cache_clear()
    yield
    identity.identity.cache_clear()


def test_a_folder_that_is_not_what_it_was_is_refused(fresh: None, tmp_path: Path) -> None:
    folder = tiny_models.llava(tmp_path / "model")
    config = ModelConfig(str(folder), content=identity.identity(str(folder))[0])
    scorer = loaded_model.scorer(config)
    assert loaded_model.scorer(config) is scorer

    weights = folder / "model.safetensors"
    changed = {name: 1.5 * tensor for name, tensor in load_file(weights).items()}
    save_file(changed, weights, {"format": "pt"})
    loaded_model._loaded = None
    identity.identity.cache_clear()
    with pytest.raises(ModelError, match=r"the files of model '.*' have changed: .* again"):
        loaded_model.scorer(config)

    shutil.rmtree(folder)
    with pytest.raises(ModelError, match=r"the folder of model '.*' is gone: .* again"):
        loaded_model.scorer(config)
