"""The starter's adapter: the files that are shipped, and how it is merged into the starter."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import tiny_examples
import tiny_models

from udfs.core.metrics import CTQ
from udfs.models import identity, mlm
from udfs.models.model_config import ModelConfig
from udfs.starter import model as starter
from udfs.training.run import make_trainer, save

SHIPPED = Path(starter.__file__).parent / "adapter"


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of an adapter for a tiny base, which replaces the one that is shipped."""
    import torch

    base, folder = tiny_models.internvl(tmp_path / "base"), tmp_path / "adapter"
    examples = tiny_examples.write(tmp_path / "examples")
    run = tiny_examples.run(base, examples, tmp_path / "work", output=str(folder))
    trainer = make_trainer(run)
    with torch.no_grad():
        for weight in trainer.accelerator.unwrap_model(trainer.model).parameters():
            if weight.requires_grad:
                weight.normal_(0, 0.1)
    save(trainer, dataclasses.replace(run, base_name=starter.STARTER_BASE))
    (folder / "README.md").write_text("---\na: b\n---\n# Tuned\n\nBy hand.\n")
    monkeypatch.setenv("MLM_FILTER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(starter, "ensure_base", lambda cache=None: base)
    monkeypatch.setattr(starter, "_adapter_folder", lambda: folder)
    return folder


def test_the_shipped_adapter_is_merged_and_described_in_the_card(
    shipped: Path, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForImageTextToText

    base = starter.ensure_base()
    content = starter.content_hash(starter.STARTER)
    assert content != starter.content_hash(starter.STARTER_BASE)
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
    changed = [
        name
        for name, weight in merged.state_dict().items()
        if not torch.equal(weight, plain.state_dict()[name])
    ]
    assert {name.split(".")[1] for name in changed} == {"language_model", "multi_modal_projector"}
    scorers = [mlm.load(ModelConfig(model)) for model in (starter.STARTER, str(shipped))]
    by_starter, by_adapter = (s.score([_png()], ["a cat"])[0].expectation for s in scorers)
    assert by_starter == pytest.approx(by_adapter, abs=1e-3)

    (shipped / "adapter_model.safetensors").unlink()
    assert starter.content_hash(starter.STARTER) == starter.content_hash(starter.STARTER_BASE)
    assert (starter.ensure(), starter.is_trained()) == (base, False)


def test_only_files_that_affect_scores_are_in_the_starters_id(shipped: Path) -> None:
    from safetensors.torch import load_file, save_file

    from udfs.scoring import prompts

    def ids() -> tuple[str, str, str, str]:
        identity.identity.cache_clear()
        return (
            starter.content_hash(starter.STARTER),
            identity.identity(starter.STARTER)[0],
            identity.scorer_id(ModelConfig(starter.STARTER)),
            starter.ensure().name,
        )

    first = ids()
    (shipped / "README.md").write_text("# Another story\n")
    for name in ("evaluation.json", "history.json", "losses.png", "new"):
        (shipped / name).write_text("{}")
    assert ids() == first
    (shipped / "README.md").unlink()
    assert ids() == first

    seen = {first}
    file = shipped / "adapter_model.safetensors"
    save_file({name: weight * 2 for name, weight in load_file(file).items()}, file)
    seen.add(ids())
    prompts.save_prompt(prompts.Prompt(before="C: "), shipped)
    seen.add(ids())
    config = shipped / "adapter_config.json"
    config.write_text(config.read_text().replace('"lora_alpha": ', '"lora_alpha": 1'))
    seen.add(ids())
    assert [len(set(column)) for column in zip(*seen, strict=True)] == [4, 4, 4, 4]
    identity.identity.cache_clear()  # forget the starter of this test


def test_the_shipped_adapter_is_read_out_of_a_zip(tmp_path: Path) -> None:
    """As on executors; there, too, a new card changes nothing."""
    package = Path(starter.__file__).parent
    root = package.parent
    folders = ("core", "scoring", "starter")
    code = [file for folder in folders for file in (root / folder).glob("*.py")]
    files = [root / "__init__.py", *code, *(package / "adapter").iterdir()]
    script = "from udfs.starter import model; print(model.__file__, model.content_hash('starter'))"
    for card in ((package / "adapter" / "README.md").read_text(), "another"):
        packed = tmp_path / f"{len(card)}.zip"
        with zipfile.ZipFile(packed, "w") as archive:
            for file in files:
                if file.name != "README.md":
                    archive.write(file, Path("udfs") / file.relative_to(root))
            archive.writestr("udfs/starter/adapter/README.md", card)
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(packed)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        expected = [str(packed / "udfs/starter/model.py"), starter.content_hash(starter.STARTER)]
        assert done.stdout.split() == expected


def _png() -> bytes:
    from pictures import encoded, picture

    return encoded(picture())


def test_the_adapter_that_is_shipped_is_small_and_holds_weights_alone() -> None:
    from safetensors import safe_open

    assert starter.is_trained()
    assert starter.shipped_adapter().keys() == set(starter.SCORING_FILES)
    assert not {file.suffix for file in SHIPPED.iterdir()} & {".bin", ".pt", ".pkl", ".py"}
    file = SHIPPED / "adapter_model.safetensors"
    assert file.stat().st_size <= 16e6
    with safe_open(file, "pt") as weights:
        assert any("projector" in name for name in weights.keys())  # noqa: SIM118 - no mapping


def test_the_card_fits_a_page_and_has_the_measured_figures() -> None:
    def interval(estimate: dict[str, float], digits: int) -> str:
        value, low, high = (f"{estimate[name]:.{digits}f}" for name in ("value", "low", "high"))
        return f"{value} [{low}, {high}]"

    card = (SHIPPED / "README.md").read_text("utf-8")
    assert len(card.splitlines()) <= 80
    text = " ".join(card.split())
    for row in json.loads((SHIPPED / "evaluation.json").read_text("utf-8")):
        digits = {"pearson": 2, "spearman": 2, "kendall": 2, "error": 1}
        cells = [row["metric"], row["reading"], *(interval(row[k], n) for k, n in digits.items())]
        assert f"| {' | '.join(cells)} |" in text
        assert f"{row['n']} pairs ({row['images']} images)" in text
    matching = json.loads((SHIPPED / "matching.json").read_text("utf-8"))
    assert f"{matching['first']:,} held-out captions" in text
    assert f"against {matching['second']:,} with another" in text
    assert f"AUC {interval(matching['share'], 3)}" in text


def test_the_starter_scores_good_writing_above_bad() -> None:
    scorer = mlm.load(ModelConfig(starter.STARTER))
    good = "The photograph shows a man who stands beside a wooden table and reads a newspaper."
    bad = (
        "table a beside reads man. The wooden newspaper stands who photograph a",
        "IMG_0042_final.jpg",
        "World | Page 28 | Forum",
    )
    answers = scorer.score([_png()] * 4, [good, *bad])
    quality = [answer.expectation[CTQ] for answer in answers if answer.expectation is not None]
    assert len(quality) == 4
    assert quality[0] > max(quality[1:]) + 20
