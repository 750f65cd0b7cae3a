"""A pass is selected on a model's first layers, which leaves the model as it was."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_families
import torch
from pictures import encoded, noise

from udfs.models import mlm
from udfs.models.model_config import DType, ModelConfig
from udfs.scoring.mlm_scorer import Scorer
from udfs.scoring.passes import pass_selection
from udfs.scoring.passes.forward_passes import PASSES
from udfs.scoring.passes.pass_selection import first_layers

PAIRS = [(encoded(noise(40, 30, 1)), "a cat"), (encoded(noise(100, 100, 2)), "two red dogs")]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """folder_of(family) -> the folder of a tiny model, built once."""

    @functools.cache
    def build(family: str) -> Path:
        return tiny_families.FAMILIES[family](tmp_path_factory.mktemp(family))

    return build


def load(folder: Path, dtype: DType = "float32") -> Scorer:
    """A scorer whose way is given, so that none has been selected yet."""
    return mlm.load(ModelConfig(str(folder), dtype=dtype, how="four_passes"))


def state_of(model: Any) -> dict[str, Any]:
    """All that a selection might leave changed, down to the bytes and where they lie."""
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    return {
        "dtype": model.dtype,
        "layers": len(model.get_decoder().layers),
        "training": [module.training for module in model.modules()],
        "kinds": {name: (tensor.dtype, tensor.data_ptr()) for name, tensor in tensors.items()},
        "bytes": {
            name: tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
            for name, tensor in tensors.items()
        },
    }


def raises_value_error(*_: Any) -> Any:
    raise ValueError("this way is closed\nfor now")


def is_interrupted(*_: Any) -> Any:
    raise KeyboardInterrupt


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["gemma4_shared_keys", "qwen3_5", "qwen2_5_vl", "molmo2"])
@pytest.mark.parametrize("training", [False, True])
def test_the_model_stays_as_it_was(
    family: str,
    dtype: DType,
    training: bool,
    folder_of: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scorer = load(folder_of(family), dtype)
    model = scorer.model.train(training)
    model.to(model.dtype)  # the buffers, too, which loading leaves in float32
    before = state_of(model)
    rows: list[Any] = [scorer.prepare(*pair).row for pair in PAIRS]
    select = functools.partial(
        pass_selection.select_pass, model, rows, scorer.template, scorer.suffix
    )
    assert select().way != "four_passes"
    assert state_of(model) == before
    for way in PASSES:
        monkeypatch.setitem(PASSES, way, raises_value_error)
    refused = ("one_pass: this way is closed", "prefix_cache: this way is closed")
    assert select(candidates=("one_pass", "prefix_cache")).refused == refused
    assert state_of(model) == before
    monkeypatch.setitem(PASSES, "prefix_cache", is_interrupted)
    with pytest.raises(KeyboardInterrupt):
        select()
    assert state_of(model) == before


@pytest.mark.parametrize(
    ("family", "enough"),
    [
        ("llava", 2),  # one would hold every kind
        ("qwen3_5", 3),  # linear, linear, full
        ("lfm2_vl", 3),  # convolution, convolution, full
        ("gemma3", 3),  # sliding, sliding, full
        ("gemma4_shared_keys", 4),  # sliding, full, and both with the keys of these
    ],
)
def test_the_first_layers_hold_every_kind(
    family: str, enough: int, folder_of: Callable[[str], Path]
) -> None:
    model = load(folder_of(family)).model
    text = model.config.get_text_config()
    own = model.get_decoder().layers
    longer = SimpleNamespace(layer_types=(getattr(text, "layer_types", None) or []) * 2)
    assert pass_selection._enough([*own, *own], longer) == enough
    model.get_decoder().layers = torch.nn.ModuleList([*own, *own])
    text.layer_types = longer.layer_types or None
    with first_layers(model, torch.float32):
        kept = list(model.get_decoder().layers)
    assert kept == list(own)[:enough]
    assert len(model.get_decoder().layers) == 2 * len(own)
