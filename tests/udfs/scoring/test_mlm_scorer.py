"""The MLM scorer on four families of models: all passes agree, and only the pair matters."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from pictures import encoded, picture

from udfs.models import mlm
from udfs.models.model_config import ModelConfig
from udfs.scoring.batching import Limits
from udfs.scoring.mlm_scorer import Scorer
from udfs.scoring.passes.forward_passes import PASSES
from udfs.scoring.results import BAD_IMAGE, CAPTION_TRUNCATED, EMPTY_CAPTION, MODEL_ERROR, OK

PAIRS = [
    (encoded(picture(40, 30, 1)), "a cat"),
    (encoded(picture(100, 100, 2), "JPEG"), "two dogs on a red sofa beside a window"),
    (encoded(picture(20, 90, 3), "WEBP"), "x"),
    (encoded(picture(64, 64, 4)), "ein längerer Satz, der über fünfzig Zeichen hat: äöü 日本"),
    (encoded(picture(1, 1, 5)), "one pixel"),
    (encoded(picture(1, 5000, 6)), "a very tall picture"),
    (encoded(picture(30, 40, 7)), "a cat"),
]
IMAGES = [image for image, _ in PAIRS]
CAPTIONS = [caption for _, caption in PAIRS]


@pytest.fixture(scope="module", params=list(tiny_models.FAMILIES))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.FAMILIES[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def scorer(folder: Path) -> Scorer:
    return mlm.load(ModelConfig(str(folder)))


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.llava(tmp_path_factory.mktemp("llava"))


def rows_of(scorer: Scorer) -> list[Any]:
    prepared = [scorer.prepare(image, caption) for image, caption in PAIRS]
    rows = [pair.row for pair in prepared if pair.row is not None]
    assert len(rows) == len(PAIRS), [pair.answer for pair in prepared]
    return rows


def scores(scorer: Scorer, images: list[bytes], captions: list[str]) -> np.ndarray:
    return np.array([answer.distributions for answer in scorer.score(images, captions)])


def test_the_three_passes_agree(scorer: Scorer) -> None:
    rows = rows_of(scorer)
    by_pass = {how: scorer.distributions(rows, how) for how in PASSES}
    expected = by_pass["four_passes"]
    assert scorer.how == "one_pass"
    for distributions in by_pass.values():
        assert distributions.sum(-1) == pytest.approx(np.ones((len(rows), 4)))
        assert np.abs(distributions - expected).max() < 1e-5
        assert np.abs((distributions - expected) @ np.arange(101)).max() < 1e-4
    found = by_pass["one_pass"]
    assert np.ptp(found, axis=0).max() > 1e-3  # pairs differ, so the agreement is not trivial
    assert np.ptp(found, axis=1).max() > 1e-3  # and so do metrics


def test_a_score_does_not_depend_on_the_batch(scorer: Scorer) -> None:
    together = scores(scorer, IMAGES, CAPTIONS)
    alone = np.concatenate(
        [scores(scorer, [i], [c]) for i, c in zip(IMAGES, CAPTIONS, strict=True)]
    )
    reversed_order = scores(scorer, IMAGES[::-1], CAPTIONS[::-1])[::-1]
    rotated = scores(scorer, IMAGES[2:] + IMAGES[:2], CAPTIONS[2:] + CAPTIONS[:2])
    for other in (alone, reversed_order, np.roll(rotated, 2, axis=0)):
        assert np.abs(other - together).max() < 1e-6


def test_padding_side_does_not_matter(folder: Path, scorer: Scorer) -> None:
    other = mlm.load(ModelConfig(str(folder)))
    other.processor.tokenizer.padding_side = "right"
    assert np.array_equal(scores(other, IMAGES, CAPTIONS), scores(scorer, IMAGES, CAPTIONS))


def test_a_caption_cannot_smuggle_in_special_tokens(scorer: Scorer) -> None:
    tokenizer = scorer.processor.tokenizer
    special = "".join(tokenizer.all_special_tokens) + " <image><IMG_CONTEXT><|image_pad|>"
    answers = scorer.score([IMAGES[0]], [f"a cat {special}"])
    assert answers[0].status == OK
    row = scorer.prepare(IMAGES[0], f"a cat {special}").row
    plain = scorer.prepare(IMAGES[0], "a cat").row
    assert row is not None
    assert plain is not None
    for token in tokenizer.all_special_ids:
        assert (row.ids == token).sum() == (plain.ids == token).sum()


def test_a_million_characters_are_cut_and_the_question_is_not(scorer: Scorer) -> None:
    long, short = scorer.score([IMAGES[0]] * 2, ["word " * 200_000, "word"])
    assert long.status == CAPTION_TRUNCATED
    assert "cut at 512 tokens" in (long.reason or "")
    assert short.status == OK
    cut = scorer.prepare(IMAGES[0], "word " * 200_000).row
    whole = scorer.prepare(IMAGES[0], "word").row
    assert cut is not None
    assert whole is not None
    after = list(scorer.template.after)
    assert cut.ids[-len(after) :].tolist() == whole.ids[-len(after) :].tolist() == after


def test_bad_pairs_do_not_harm_their_neighbours(scorer: Scorer) -> None:
    images = [IMAGES[0], b"<html>", IMAGES[1], None, IMAGES[2]]
    captions = [CAPTIONS[0], "a", CAPTIONS[1], "b", "  "]
    answers = scorer.score(images, captions)
    statuses = [answer.status for answer in answers]
    assert statuses == [OK, BAD_IMAGE, OK, BAD_IMAGE, EMPTY_CAPTION]
    alone = scores(scorer, IMAGES[:2], CAPTIONS[:2])
    found = np.array([answers[0].distributions, answers[2].distributions])
    assert np.abs(found - alone).max() < 1e-6
    assert all(a.reason and a.expectation is None for a in answers if a.status != OK)


def test_tokens_of_whole_numbers_work_as_well(tmp_path: Path) -> None:
    scorer = mlm.load(ModelConfig(str(tiny_models.llava(tmp_path, merges=True))))
    assert len(scorer.template.tree.nodes) == 1
    rows = rows_of(scorer)
    for how in PASSES:
        found = scorer.distributions(rows, how)
        assert found.sum(-1) == pytest.approx(np.ones((len(rows), 4)))
        assert np.abs(found - scorer.distributions(rows, "four_passes")).max() < 1e-5


def replace_forward(scorer: Scorer, replacement: Callable[..., Any]) -> None:
    """Replace the model's forward by `replacement(original, **inputs)`."""
    original = scorer.model.forward
    scorer.model.forward = lambda **inputs: replacement(original, **inputs)


def test_a_model_that_ignores_the_mask_is_scored_by_another_pass(llava: Path) -> None:
    scorer = mlm.load(ModelConfig(str(llava), how="four_passes"))

    def causal(original: Callable[..., Any], **inputs: Any) -> Any:
        """Treats 4-D masks as causal, as some attention kernels do."""
        if inputs["attention_mask"].ndim == 4:
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        return original(**inputs)

    replace_forward(scorer, causal)
    assert scorer._select_pass("auto").way == "prefix_cache"

    def no_cache(original: Callable[..., Any], **inputs: Any) -> Any:
        if inputs.get("past_key_values") is not None:
            raise ValueError("this model has no cache")
        return causal(original, **inputs)

    replace_forward(scorer, no_cache)
    assert scorer._select_pass("auto").way == "four_passes"


def test_batches_are_halved_when_memory_runs_out_and_grow_again(llava: Path) -> None:
    scorer = mlm.load(ModelConfig(str(llava)))
    whole = scores(scorer, IMAGES * 3, CAPTIONS * 3)
    batch_sizes: list[int] = []

    def small_memory(original: Callable[..., Any], **inputs: Any) -> Any:
        batch_sizes.append(len(inputs["input_ids"]))
        if batch_sizes[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(**inputs)

    replace_forward(scorer, small_memory)
    assert np.abs(scores(scorer, IMAGES * 3, CAPTIONS * 3) - whole).max() < 1e-6
    assert max(batch_sizes) > 2
    assert scorer.limits.rows <= 2


def test_a_pair_that_the_model_fails_on_stands_alone(llava: Path) -> None:
    scorer = mlm.load(ModelConfig(str(llava)))
    poison = scorer.prepare(IMAGES[0], "poison").row
    assert poison is not None

    def fails(original: Callable[..., Any], **inputs: Any) -> Any:
        ids, length = inputs["input_ids"], len(poison.ids)
        if ids.shape[1] >= length and (ids[:, :length] == poison.ids).all(-1).any():
            raise RuntimeError("cannot do this one\nand a page of detail")
        return original(**inputs)

    replace_forward(scorer, fails)
    answers = scorer.score([IMAGES[0]] * 5, ["a catty", "a doggy", "poison", "a fishy", "a birdy"])
    assert [a.status for a in answers] == [OK, OK, MODEL_ERROR, OK, OK]
    assert answers[2].reason == "RuntimeError: cannot do this one"


def test_numbers_that_are_not_finite_are_an_error(llava: Path) -> None:
    scorer = mlm.load(ModelConfig(str(llava)))

    def nan(original: Callable[..., Any], **inputs: Any) -> Any:
        out = original(**inputs)
        out.logits = out.logits * float("nan")
        return out

    replace_forward(scorer, nan)
    assert scorer.score(IMAGES[:1], CAPTIONS[:1])[0].status == MODEL_ERROR


def test_limits_shrink_and_grow() -> None:
    limits = Limits(rows=16, tokens=1000)
    assert limits.fit([100] * 50, suffix=100) == 5
    assert limits.fit([100, 100, 116], suffix=0) == 2  # one padded length a batch
    assert limits.fit([5000], suffix=100) == 1
    limits.shrink(failed=16)
    assert limits.rows == 8
    for _ in range(Limits.GROW_AFTER):
        limits.grow()
    assert limits.rows == 16
