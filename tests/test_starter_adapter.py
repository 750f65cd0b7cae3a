"""The starter's adapter: what is shipped, and how it is merged into the starter."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_models

from udfs import starter


def test_the_shipped_adapter_is_merged_and_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForImageTextToText

    from udfs import models
    from udfs.training import adapter
    from udfs.training.recipe import Lora, Recipe, Stage, Weights

    base = tiny_models.internvl(tmp_path / "base")
    stage = Stage(name="s", steps=1, weights=Weights(score=1), learning_rate=1)
    student = adapter.student(
        str(base), Recipe(stages=(stage,), lora=Lora(rank=2), dtype="float32")
    )
    with torch.no_grad():
        for weight in student.trained:
            weight.normal_(0, 0.1)
    adapter.save(student, tmp_path / "adapter", starter.STARTER_BASE)
    (tmp_path / "adapter" / "README.md").write_text("---\na: b\n---\n# Tuned\n\nBy hand.\n")
    shipped = {file.name: file.read_bytes() for file in (tmp_path / "adapter").iterdir()}

    monkeypatch.setenv("MLM_FILTER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(starter, "ensure_base", lambda cache=None: base)
    monkeypatch.setattr(starter, "shipped_adapter", lambda: {})
    untrained = starter.content(starter.STARTER)
    assert untrained == starter.content(starter.STARTER_BASE)
    assert (starter.ensure(), starter.is_trained()) == (base, False)

    monkeypatch.setattr(starter, "shipped_adapter", lambda: shipped)
    content = starter.content(starter.STARTER)
    assert content not in (untrained, starter.content(starter.STARTER_BASE))
    assert starter.is_trained()
    assert not starter.is_trained(starter.STARTER_BASE)
    folder = starter.ensure()
    assert folder.name == f"starter-{content}"
    card = (folder / "README.md").read_text()
    assert "not meaningful" not in card
    assert card.endswith("## Tuned\n\nBy hand.\n")
    assert "a: b" not in card

    merged, plain = (AutoModelForImageTextToText.from_pretrained(f) for f in (folder, base))
    assert type(merged) is type(plain)
    moved = [
        name
        for name, weight in merged.state_dict().items()
        if not torch.equal(weight, plain.state_dict()[name])
    ]
    assert {name.split(".")[1] for name in moved} == {"language_model", "multi_modal_projector"}
    one = models.load(models.ModelConfig(starter.STARTER))
    two = models.load(models.ModelConfig(str(tmp_path / "adapter")))
    pair = ([_png()], ["a cat"])
    answers = [scorer.score(*pair)[0].expectation for scorer in (one, two)]
    assert answers[0] == pytest.approx(answers[1], abs=1e-3)
    shipped["README.md"] = b"another story"
    assert starter.content(starter.STARTER) != content


def _png() -> bytes:
    from pictures import encoded, picture

    return encoded(picture())


def test_the_adapter_that_is_shipped_is_small_and_of_the_recipe_in_conf() -> None:
    import yaml
    from safetensors import safe_open

    from udfs.training.recipe import Recipe

    root = Path(__file__).parents[1]
    folder = root / "udfs" / "starter_adapter"
    assert starter.is_trained()
    assert starter.shipped_adapter().keys() == {file.name for file in folder.iterdir()}
    assert not {file.suffix for file in folder.iterdir()} & {".bin", ".pt", ".pkl", ".py"}
    file = folder / "adapter_model.safetensors"
    assert file.stat().st_size <= 16e6
    with safe_open(file, "pt") as weights:
        assert any("projector" in name for name in weights.keys())  # noqa: SIM118 - no mapping
    told = Recipe.model_validate_json((folder / "recipe.json").read_text())
    conf = yaml.safe_load((root / "conf" / "starter_recipe.yaml").read_text())
    assert Recipe.model_validate(conf) == told
    reasons = yaml.safe_load((root / "conf" / "reasons_recipe.yaml").read_text())
    assert Recipe.model_validate(reasons).prompt == told.prompt  # it goes on from the starter


def test_the_starter_tells_good_writing_from_bad() -> None:
    from udfs import models

    scorer = models.load(models.ModelConfig(starter.STARTER))
    good = "The photograph shows a man who stands beside a wooden table and reads a newspaper."
    bad = (
        "table a beside reads man. The wooden newspaper stands who photograph a",
        "IMG_0042_final.jpg",
        "World | Page 28 | Forum",
    )
    found = scorer.score([_png()] * 4, [good, *bad])
    writing = [answer.expectation[2] for answer in found if answer.expectation is not None]
    assert len(writing) == 4
    assert writing[0] > max(writing[1:]) + 20
