"""The finetune job on real Spark, Delta and a real (tiny) model: from tables to a model folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_examples
import tiny_models
import yaml
from pyspark.sql import SparkSession

import udfs.training.train
from jobs.core.errors import UsageError
from jobs.finetune import job as finetune
from jobs.finetune import recipe_file
from jobs.tables import delta
from udfs.core import peft_adapters
from udfs.training import examples

pytestmark = pytest.mark.spark

RECIPE = tiny_examples.recipe(
    {"weights": {"rank": 1}, "steps": 3},
    {"weights": {"score": 1, "reason": 0.3}, "steps": 4},
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_models.internvl(tmp_path_factory.mktemp("internvl")))


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE.model_dump(mode="json")))
    return str(path)


BAD = [
    ("u001", "a caption", "itm", None, "no score"),
    ("u001", "a caption", "itm", float("nan"), "no score"),
    ("u001", "a caption", "itm", 101.0, "score outside 0..100"),
    ("u001", "a caption", "beauty", 5.0, "unknown metric"),
    ("u001", " ", "itm", 5.0, "no caption"),
    (None, "a caption", "itm", 5.0, "no uid"),
    ("nobody", "a caption", "itm", 5.0, "no image"),
    ("broken", "a caption", "itm", 5.0, ""),
    ("copy", "a caption", "itm", 5.0, "same image as one that is held out"),
]


@pytest.fixture(scope="module")
def given(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A table of captions and one of instructions, with damage."""
    folder = tmp_path_factory.mktemp("tables")
    rows = [(r["uid"], r["image"], r["caption"], r["group"]) for r in tiny_examples.pairs(16)]
    rows += [
        ("broken", b"no image", "what is this", "book 2"),
        ("copy", tiny_examples.image(1), "the picture of u001 again", "book 2"),
        ("bare", None, "nothing to see", "book 2"),
        (None, tiny_examples.image(2), "nobody's", "book 2"),
    ]
    frame = spark.createDataFrame(rows, "uid string, image binary, caption string, book string")
    told = [(*r.values(), "rationalization") for r in tiny_examples.instructions(16)]
    told += [(uid, caption, metric, score, None, None) for uid, caption, metric, score, _ in BAD]
    told.append(("u000", "another style", "itm", 50.0, "because", "chain_of_thought"))
    told.append((*told[0][:3], told[0][3] - 2, *told[0][4:]))  # two answers: their mean counts
    columns = "uid string, caption string, metric string, score double, reason string, style string"
    places = {"captions": str(folder / "pairs"), "instructions": str(folder / "instructions")}
    delta.overwrite(frame.repartition(3), places["captions"], skipping=("uid",))
    delta.overwrite(spark.createDataFrame(told, columns).repartition(3), places["instructions"])
    return places


def config(output: Path, model: str, recipe: str, **more: Any) -> finetune.FinetuneConfig:
    options = {"group_column": "book", "hold_out": ["book 1"], "device": "cpu"} | more
    return finetune.FinetuneConfig(output=str(output), model=model, recipe=recipe, **options)


def weights(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


def test_from_tables_to_a_model(
    spark: SparkSession,
    model: str,
    recipe: str,
    given: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "out" / "model"
    settings = config(output, model, recipe, **given)
    dry = finetune.run(spark, settings.model_copy(update={"dry_run": True}))
    assert dry["steps"] == 7
    assert dry["tokens_about"] > 100
    assert not output.parent.exists()

    train = udfs.training.train.train

    def killed(*arguments: Any, **options: Any) -> None:
        train(*arguments, **options | {"stop_after": 5, "every_seconds": 0})
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(udfs.training.train, "train", killed)
        with pytest.raises(KeyboardInterrupt):
            finetune.run(spark, settings)
    assert not output.exists()
    work = tmp_path / "out" / "model.work"
    assert [path.name for path in (work / "checkpoints").glob("checkpoint-*")] == [
        "checkpoint-1-0000001"
    ]
    summary = finetune.run(spark, settings)
    assert {name: dry[name] for name in ("instructions", "captions")} == {
        name: summary[name] for name in ("instructions", "captions")
    }

    data, held = examples.read(work / "examples"), examples.read(work / "examples" / "held_out")
    books = {row["uid"]: row["group"] for row in tiny_examples.pairs(16)}
    inside = {uid for uid, book in books.items() if book == "book 1"}
    assert inside == set(held.uids)
    assert set(data.uids) == set(books) - inside
    right = {
        uid: own for each in (data, held) for uid, own in zip(each.uids, each.captions, strict=True)
    }
    for row in tiny_examples.pairs(16):
        if row["caption"]:
            assert row["caption"] in right[row["uid"]]
    assert len(data.scored) == 2 * len(data.uids)
    assert len(held.scored) == 2 * len(held.uids)
    first = tiny_examples.instructions(16)[0]
    mean = next(p for p in data.scored if p.caption == first["caption"] and p.image == 0)
    assert mean.scores[0] == first["score"] - 1

    left_out = summary["left_out"]["instructions"]
    expected: dict[str, int] = {"another style": 1}
    for *_, why in BAD:
        if why:
            expected[why] = expected.get(why, 0) + 1
    assert left_out == expected
    assert summary["left_out"]["captions"] == {
        "image that cannot be decoded": 1,
        "no image": 1,
        "no uid": 1,
        "same image as one that is held out": 1,
        "no caption": sum(row["caption"] is None for row in tiny_examples.pairs(16)),
    }
    assert {row["metric"] for row in summary["evaluation"]} == {"itm", "odf", "ctq", "su"}
    assert summary["matching"]["first"] == len(inside)
    assert peft_adapters.base_of(output) == (model, None)
    card = (output / "README.md").read_text()
    assert "held out whole: book 1" in card
    assert "unknown metric 1" in card

    whole = finetune.run(spark, config(tmp_path / "unbroken", model, recipe, **given))
    assert weights(tmp_path / "unbroken") == weights(output)
    assert whole["evaluation"] == summary["evaluation"]
    assert whole["matching"] == summary["matching"]
    with pytest.raises(UsageError, match="is there already"):
        finetune.run(spark, settings)
    path = Path(recipe)
    path.write_text(path.read_text().replace("seed: 0", "seed: 1"))
    other = config(tmp_path / "other", model, recipe, work=str(work), **given)
    with pytest.raises(UsageError, match="another recipe"):
        finetune.run(spark, other)
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_two_processes_train_one_model(
    spark: SparkSession, model: str, recipe: str, given: dict[str, str], tmp_path: Path
) -> None:
    result = finetune.run(spark, config(tmp_path / "model", model, recipe, processes=2, **given))
    assert result["evaluation"]
    history = json.loads((tmp_path / "model" / "history.json").read_text())
    assert len(history) == 7
    assert "2 process(es)" in (tmp_path / "model" / "README.md").read_text()


def test_mistakes_are_told(
    spark: SparkSession,
    model: str,
    recipe: str,
    given: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def says(message: str, *words: str) -> None:
        output = ["--output", str(tmp_path / "model"), "--captions", given["captions"]]
        assert finetune.main([*output, *words]) == 2
        told = capsys.readouterr()
        assert json.loads(told.out.splitlines()[-1])["status"] == "usage_error"
        assert message in told.err

    bad = tmp_path / "bad.yaml"
    bad.write_text("stages:\n  - {name: a, steps: 1, learning_rate: 1, weights: {scores: 1}}\n")
    says("line 2: unknown key stages.0.weights.scores; did you mean score?", "--recipe", str(bad))
    bad.write_text("stages: [")
    says("bad.yaml line 1: ", "--recipe", str(bad))
    says("--hold-out names groups", "--recipe", recipe, "--hold-out", "x")
    group = ["--recipe", recipe, "--group-column", "book"]
    says("no group book 7 in book; did you mean book", *group, "--hold-out", "book 7")
    says("has no column boock; did you mean book?", "--recipe", recipe, "--group-column", "boock")
    says("neither a local folder nor", *group, "--model", "nobody/nothing")
    says("add --merge", "--recipe", recipe, "--model", "starter")
    says("stage 'stage 1': score needs scored pairs", *group, "--model", model)
    assert not (tmp_path / "model").exists()


def test_a_recipe_file_is_read(recipe: str) -> None:
    assert recipe_file.read_recipe(Path(recipe)) == RECIPE
