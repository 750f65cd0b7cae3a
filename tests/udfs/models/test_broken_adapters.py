"""Adapters that are pickled, damaged or another model's: one line each, and nothing made up."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_models

from udfs.core.checked_weights import load_checked
from udfs.core.weight_files import WeightsError
from udfs.models import mlm
from udfs.models.model_config import ModelConfig

Tensors = dict[str, Any]


@pytest.fixture(scope="module")
def adapter(
    llava: Path, tmp_path_factory: pytest.TempPathFactory, edit_json: Callable[..., None]
) -> Path:
    """An adapter of `llava` that changes its language model and keeps a projector layer whole."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText

    folder = tmp_path_factory.mktemp("adapter")
    model = AutoModelForImageTextToText.from_pretrained(llava)
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and "language_model" in name
    ]
    whole = ["multi_modal_projector.linear_1"]
    config = LoraConfig(r=4, target_modules=linear, modules_to_save=whole, init_lora_weights=False)
    get_peft_model(model, config).save_pretrained(str(folder))
    edit_json(folder / "adapter_config.json", base_model_name_or_path=str(llava))
    return folder


@pytest.fixture
def adapter_copy(adapter: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(adapter, tmp_path / "adapter"))


class Pickled:
    """What writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (open, (str(self.path), "w"))


def test_a_pickled_adapter_is_never_read(
    adapter_copy: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    import torch

    mlm.load(ModelConfig(str(adapter_copy)))
    (adapter_copy / "adapter_model.safetensors").unlink()
    assert "the adapter X has no weights: no adapter_model.safetensors" in refused(adapter_copy)
    torch.save({"a": Pickled(tmp_path / "written")}, adapter_copy / "adapter_model.bin")
    assert "X has pickled weights only (adapter_model.bin)" in refused(adapter_copy)
    assert not (tmp_path / "written").exists()


def test_an_adapters_weights_that_do_not_fit(
    adapter: Path,
    adapter_copy: Path,
    refused: Callable[..., str],
    edit_tensors: Callable[..., None],
) -> None:
    import torch

    path = adapter_copy / "adapter_model.safetensors"

    def after(edit: Callable[[Tensors], Tensors]) -> str:
        shutil.copy(adapter / "adapter_model.safetensors", path)
        edit_tensors(path, edit)
        return refused(adapter_copy)

    def lacks(word: str) -> Callable[[Tensors], Tensors]:
        return lambda tensors: {n: t for n, t in tensors.items() if word not in n}

    lora = "base_model.model.model.language_model.layers.0.mlp.up_proj.lora_A.weight"
    whole = "base_model.model.model.multi_modal_projector.linear_1.bias"
    assert after(lacks("layers.0.mlp.up_proj")).startswith(
        "the adapter X lacks 2 of its tensors (base_model.model.model.language_model.layers.0.mlp"
    )
    assert after(lacks("linear_1.bias")).startswith("the adapter X lacks the tensor")
    assert after(lambda tensors: tensors | {lora: torch.zeros(3, 32)}).startswith(
        "the adapter X has a tensor of the wrong shape (base_model.model.model.language_model"
    )
    assert "linear_1" in after(lambda tensors: tensors | {whole: torch.zeros(3)})
    foreign = lora.replace("up_proj", "no_such")
    assert after(lambda tensors: tensors | {foreign: torch.zeros(3)}).startswith(
        f"the adapter X has 1 tensor that its model does not use ({foreign})"
    )
    assert "NaN" in after(lambda tensors: tensors | {lora: torch.full((4, 32), torch.nan)})
    path.write_bytes(path.read_bytes()[:-50])
    assert "X/adapter_model.safetensors is damaged" in refused(adapter_copy)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (None, "X/adapter_config.json is damaged: no JSON"),
        ({"base_model_name_or_path": 5}, "X/adapter_config.json names no base model"),
        ({"base_model_name_or_path": "/none"}, "there is no model folder /none, which the adapter"),
        ({"revision": 5}, "X/adapter_config.json names no commit of its base model, but 5"),
        ({"target_modules": ["foo"]}, "the adapter X changes modules that its base model does not"),
        ({"target_modules": "((("}, "the adapter X does not fit its base model: "),
        ({"peft_type": "FOO"}, "the adapter X does not fit its base model: KeyError: 'FOO'"),
        ({"r": "x"}, "the adapter X does not fit its base model: TypeError"),
        ({"r": 8}, "the adapter X has a tensor of the wrong shape ("),
    ],
)
def test_an_adapters_configuration(
    adapter_copy: Path,
    changed: dict[str, Any] | None,
    said: str,
    refused: Callable[..., str],
    edit_json: Callable[..., None],
) -> None:
    path = adapter_copy / "adapter_config.json"
    path.write_text("{") if changed is None else edit_json(path, **changed)
    assert said in refused(adapter_copy)


def test_the_adapter_of_another_model(
    adapter_copy: Path, tmp_path: Path, refused: Callable[..., str], edit_json: Callable[..., None]
) -> None:
    base = str(tiny_models.idefics3(tmp_path / "base"))
    edit_json(adapter_copy / "adapter_config.json", base_model_name_or_path=base)
    assert "the adapter X " in refused(adapter_copy)
    with pytest.raises(WeightsError, match="is an adapter, where a whole model is needed"):
        load_checked(None, adapter_copy)
