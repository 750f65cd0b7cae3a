"""Dual encoders as scorers: the same cosine as transformers computes, whatever the batch."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_dual_encoders
import tiny_models
import torch
from damaged_images import DAMAGED
from pictures import encoded, picture
from PIL import Image

from udfs.inputs import images
from udfs.models import dual_encoder, identity, loaded_model
from udfs.models.model_config import ModelConfig, ModelError
from udfs.scoring.dual_encoder_scorer import DualEncoder
from udfs.scoring.results import BAD_IMAGE, CAPTION_TRUNCATED, EMPTY_CAPTION, MODEL_ERROR, OK
from udfs.scoring.stream import Meter, score_stream

PAIRS = [
    (encoded(picture(40 + 7 * i, 30 + 5 * (i % 4), i), "JPEG"), caption)
    for i, caption in enumerate(
        [
            "a cat",
            "two dogs on a red sofa",
            "x",
            "a map of the world",
            "日本 äöü",
            "a chart with four bars, of which one is taller",
            "a cat",
        ]
    )
]
IMAGES = [image for image, _ in PAIRS]
CAPTIONS = [caption for _, caption in PAIRS]


@pytest.fixture(scope="module", params=list(tiny_dual_encoders.DUAL_ENCODERS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_dual_encoders.DUAL_ENCODERS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def scorer(folder: Path) -> DualEncoder:
    return dual_encoder.load(ModelConfig(str(folder)))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_dual_encoders.clip(tmp_path_factory.mktemp("clip"))


def clip_scores(scorer: Any, images: list[bytes], captions: list[str]) -> np.ndarray:
    answers = scorer.score(images, captions)
    assert all(answer.clip_score is not None for answer in answers), answers
    assert all(answer.expectation is None for answer in answers)
    return np.array([answer.clip_score for answer in answers])


def transformers_cosine(folder: Path, image: bytes, caption: str) -> float:
    """The cosine by transformers' own processor and logits."""
    from transformers import AutoModel, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    padding: Any = "max_length" if model.config.model_type == "siglip" else True
    inputs = processor(
        text=[caption],
        images=[images.decode(image)],
        padding=padding,
        truncation=True,
        return_tensors="pt",
    )
    with torch.inference_mode():
        logit = float(model(**inputs).logits_per_image)
        bias = float(getattr(model, "logit_bias", torch.zeros(1)))
        return (logit - bias) / float(model.logit_scale.exp())


def test_it_is_the_cosine_that_transformers_computes(folder: Path, scorer: DualEncoder) -> None:
    found = clip_scores(scorer, IMAGES, CAPTIONS)
    expected = [transformers_cosine(folder, image, caption) for image, caption in PAIRS]
    assert np.abs(found - expected).max() < 1e-5
    assert np.ptp(found) > 1e-3  # pairs differ, so the agreement is not trivial


def test_a_score_does_not_depend_on_the_batch(scorer: DualEncoder) -> None:
    together = clip_scores(scorer, IMAGES, CAPTIONS)
    alone = np.concatenate(
        [clip_scores(scorer, [i], [c]) for i, c in zip(IMAGES, CAPTIONS, strict=True)]
    )
    reversed_order = clip_scores(scorer, IMAGES[::-1], CAPTIONS[::-1])[::-1]
    more_rows = clip_scores(scorer, IMAGES + IMAGES[:1] * 9, CAPTIONS + ["a fox " * 9] * 9)[:7]
    for other in (alone, reversed_order, more_rows):
        assert np.abs(other - together).max() < 1e-6


def test_a_long_caption_is_cut_and_keeps_its_special_tokens(
    folder: Path, scorer: DualEncoder
) -> None:
    config = json.loads((folder / "config.json").read_text())
    limit = config["text_config"]["max_position_embeddings"]
    full, long, longest = "a" * (limit - 2), "a" * (limit - 1), "a" * 10**6
    answers = scorer.score([IMAGES[0]] * 3, [full, long, longest])
    assert [a.status for a in answers] == [OK, CAPTION_TRUNCATED, CAPTION_TRUNCATED]
    assert f"cut at {limit - 2} tokens" in (answers[1].reason or "")
    # Not to the last bit: threads divide the rows of a batch among them and sum in other orders.
    scores = [answer.clip_score for answer in answers]
    assert scores == pytest.approx([scores[0]] * 3, abs=1e-6)
    assert answers[0].clip_score == pytest.approx(
        transformers_cosine(folder, IMAGES[0], long), abs=1e-5
    )
    row = scorer.prepare(IMAGES[0], longest).row
    tokenizer = scorer.processor.tokenizer
    assert row is not None
    assert len(row.ids) == limit
    assert row.ids[[0, -1]].tolist() == [tokenizer.bos_token_id, tokenizer.eos_token_id]


def test_a_caption_cannot_end_itself(scorer: DualEncoder) -> None:
    plain = scorer.prepare(IMAGES[0], "a cat").row
    marked_up = scorer.prepare(IMAGES[0], "<bos>a<eos> cat<eos>").row
    assert plain is not None
    assert marked_up is not None
    for token in scorer.processor.tokenizer.convert_tokens_to_ids(["<bos>", "<eos>"]):
        assert (marked_up.ids == token).sum() == (plain.ids == token).sum() == 1


def test_bad_pairs_have_a_reason_and_do_not_harm_their_neighbours(scorer: DualEncoder) -> None:
    damaged = [data for data, _ in DAMAGED.values()]
    answers = scorer.score([IMAGES[0], *damaged, IMAGES[1]], ["a cat", *["x"] * len(damaged), "b"])
    assert {a.status for a in answers[1:-1]} == {BAD_IMAGE}
    assert all(a.reason and a.clip_score is None for a in answers[1:-1])
    alone = clip_scores(scorer, IMAGES[:2], ["a cat", "b"])
    assert np.array([answers[0].clip_score, answers[-1].clip_score]) == pytest.approx(alone)
    empty = scorer.score([IMAGES[0]] * 2, [None, "  "])
    assert [a.status for a in empty] == [EMPTY_CAPTION] * 2


def test_batches_are_halved_and_a_pair_that_fails_stands_alone(clip: Path) -> None:
    scorer = dual_encoder.load(ModelConfig(str(clip)))
    whole = clip_scores(scorer, IMAGES * 3, CAPTIONS * 3)
    forward, sizes = scorer.model.forward, []

    def small_memory(**inputs: Any) -> Any:
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(**inputs)

    scorer.model.forward = small_memory
    assert np.abs(clip_scores(scorer, IMAGES * 3, CAPTIONS * 3) - whole).max() < 1e-6
    assert max(sizes) > 2 >= scorer.limits.rows
    poison = scorer.prepare(IMAGES[0], "poison").row
    assert poison is not None
    _, exclamation_mark, _ = scorer.processor.tokenizer("!")["input_ids"]

    def fails(**inputs: Any) -> Any:
        if (inputs["input_ids"][:, : len(poison.ids)] == poison.ids).all(-1).any():
            raise RuntimeError("cannot do this one")
        out = forward(**inputs)
        out.text_embeds[inputs["input_ids"][:, 1] == exclamation_mark] = torch.nan
        return out

    scorer.model.forward = fails
    scorer.limits.rows = 16
    answers = scorer.score([IMAGES[0]] * 4, ["a catty", "poison", "!ouch", "a birdy"])
    assert [a.status for a in answers] == [OK, MODEL_ERROR, MODEL_ERROR, OK]
    assert answers[1].reason == "RuntimeError: cannot do this one"
    assert "not finite" in (answers[2].reason or "")


def test_the_kind_of_a_model_is_known_by_its_folder(clip: Path, tmp_path: Path) -> None:
    llava = tiny_models.llava(tmp_path / "llava")
    assert dual_encoder.is_dual_encoder(str(clip))
    assert not dual_encoder.is_dual_encoder(str(llava))
    config = ModelConfig(str(clip))
    scorer = loaded_model.scorer(config)
    assert isinstance(scorer, DualEncoder)
    assert loaded_model.scorer(config) is scorer
    assert identity.scorer_id(config) == identity.scorer_id(ModelConfig(str(clip), batch_rows=3))
    assert identity.scorer_id(config) != identity.scorer_id(
        ModelConfig(str(clip), max_caption_tokens=8)
    )
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(ModelError, match="has no weights"):
        loaded_model.scorer(ModelConfig(str(tmp_path / "broken")))


def test_a_dual_encoder_is_streamed_like_any_scorer(scorer: DualEncoder) -> None:
    batches = [(IMAGES, CAPTIONS), ([b"<html>"], ["x"])]
    found = [a for answers in score_stream(scorer, batches, Meter()) for a in answers]
    assert [a.clip_score for a in found[:-1]] == pytest.approx(
        clip_scores(scorer, IMAGES, CAPTIONS)
    )
    assert found[-1].status == BAD_IMAGE


def test_a_picture_of_any_shape_is_scored(scorer: DualEncoder) -> None:
    shapes = [encoded(Image.new("RGB", size, (9, 99, 199))) for size in ((1, 1), (1, 900), (99, 2))]
    assert len(clip_scores(scorer, shapes, ["a picture"] * 3)) == 3
