"""Scores that are assumed of pairs that no teacher has seen, and the loss that learns from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_examples
import tiny_models
import torch
from numpy.typing import NDArray
from scipy import stats
from tiny_examples import recipe

from udfs.training import adapter, asking, features, sampling
from udfs.training.assumed import FEWEST, Assumed
from udfs.training.examples import Examples, ExamplesError, Scored
from udfs.training.objective import Objective
from udfs.training.plans import Plan

IMAGES = 120
TAUGHT = 80
"""The teacher has seen pairs of so many images."""


def copies(examples: Examples, image: int) -> tuple[str, str, str, str]:
    """An image's own caption, an altered and a garbled copy of it, and another image's caption."""
    found = sampling.ranked(examples, image, 1, None, ("copies",))
    altered, garbled = found.altered[0], found.garbled[0]
    assert altered
    assert garbled
    return found.own[0], altered, garbled, found.rivals[0]


@pytest.fixture(scope="module")
def data() -> Examples:
    """Captions that match, and a teacher who scores them and their copies with a little noise."""
    numbers, things = (
        ("Two", "Three", "Four"),
        ("fish", "boats", "books", "stones", "lamps", "birds", "shells"),
    )
    own = [
        f"{numbers[i % 3]} red {things[i % 7]} stand on shelf number {i} of a room."
        for i in range(IMAGES)
    ]
    uids, groups = [f"u{i:03}" for i in range(IMAGES)], [f"book {i % 4}" for i in range(IMAGES)]
    empty = Examples(uids, [b""] * IMAGES, groups, [[text] for text in own], [])
    means = ((90, 75, 80, 50), (75, 35, 80, 40), (60, 45, 15, 20), (5, 3, 80, 5))
    draw = np.random.default_rng(0)
    scored = [
        Scored(i, text, tuple(np.clip(mean + draw.normal(0, 4, 4), 0, 100)), ("",) * 4)
        for i in range(TAUGHT)
        for text, mean in zip(copies(empty, i), means, strict=True)
    ]
    return replace(empty, scored=scored)


def test_unseen_pairs_get_the_scores_of_their_kind(data: Examples) -> None:
    assumed = Assumed(data)
    pairs = [(i, text) for i in range(TAUGHT, IMAGES) for text in copies(data, i)]
    found = assumed.scores(pairs).reshape(-1, 4, 4)  # image, kind, metric
    own, altered, garbled, foreign = np.moveaxis(found, 1, 0)
    itm, odf, ctq = 0, 1, 2
    assert (own[:, itm] > foreign[:, itm] + 30).mean() > 0.95
    assert (own[:, odf] > altered[:, odf] + 15).mean() > 0.9
    assert (altered[:, ctq] > garbled[:, ctq] + 30).mean() > 0.9
    assert (foreign[:, ctq] > 60).mean() > 0.95  # well written, if of something else
    assert found.min() >= 0
    assert found.max() <= 100
    # The same in whatever order they are asked for.
    assert np.array_equal(Assumed(data).scores(pairs[::-1])[::-1], found.reshape(-1, 4))


def shelf(text: str) -> int:
    """The number of the shelf that a caption names."""
    return int(text.split("number ")[1].split()[0])


def meanings(texts: Sequence[str]) -> NDArray[np.float32]:
    """Nearer shelves are more alike: half a turn from the first to the last."""
    turns = np.array([np.pi * shelf(text) / IMAGES for text in texts])
    return np.stack([np.cos(turns), np.sin(turns)], axis=1).astype(np.float32)


def test_captions_that_mean_nearly_the_same_get_more(data: Examples) -> None:
    """The teacher gives the more, the nearer the shelf: no word of a caption tells that."""
    draw = np.random.default_rng(1)
    near = [(i, int(draw.integers(IMAGES))) for i in range(TAUGHT) for _ in range(4)]
    pairs = [(i, data.captions[j][0]) for i, j in near if i != j]
    given = [100.0 - abs(i - shelf(text)) * 100 / IMAGES for i, text in pairs]
    scored = [Scored(*p, (s,) * 4, ("",) * 4) for p, s in zip(pairs, given, strict=True)]
    taught = replace(data, scored=scored)
    unseen = [
        (i, data.captions[(i + step) % IMAGES][0])
        for i in range(TAUGHT, IMAGES)
        for step in (1, 5, 25, 60)
    ]
    right = [100.0 - abs(i - shelf(text)) * 100 / IMAGES for i, text in unseen]

    def agreement(assumed: Assumed) -> float:
        return float(stats.spearmanr(assumed.scores(unseen)[:, 0], right)[0])

    assert agreement(Assumed(taught)) < 0.4
    by_meaning = Assumed(taught, meanings=meanings)
    assert agreement(by_meaning) > 0.9
    (own, other) = by_meaning.nearness([(3, data.captions[3][0])])[0]
    assert own == pytest.approx(1, abs=1e-6)
    assert np.isnan(other)  # it has no other caption


def test_too_few_scored_pairs_are_refused(data: Examples) -> None:
    few = replace(data, scored=data.scored[: FEWEST - 1])
    with pytest.raises(ExamplesError, match=f"{FEWEST} pairs with scores of itm"):
        Assumed(few)


@pytest.mark.parametrize("first_digit", [False, True])
def test_what_is_assumed_costs_what_a_teachers_scores_would(
    tmp_path: Path, data: Examples, first_digit: bool
) -> None:
    pictures = [tiny_examples.image(i) for i in range(IMAGES)]
    seen = replace(data, images=pictures)
    common = {"sampled_numbers": first_digit, "ranked": 3, "rivals": 2}
    how = recipe(
        {"weights": {"assume": 1, "rank": 1}, **common},
        {"weights": {"rank": 1}, **common},
        {"weights": {"score": 1}, **common},
        distance=1.0,
    )
    student = adapter.student(str(tiny_models.internvl(tmp_path / "model")), how)
    read = features.cached(tmp_path / "features", student, pictures)
    objective = Objective(student, seen, read, how)
    ranked = [sampling.ranked(seen, i, 2, None, ("plan",)) for i in (5, 17, 90)]
    pairs = [
        (known.image, text)
        for known in ranked
        for text in (*known.own, *known.altered, *known.garbled, *known.rivals)
        if text
    ]
    assert objective.inputs.assumed.keys() == {"words"}
    told = objective.inputs.assumed["words"].scores(pairs)
    taught = replace(
        seen,
        scored=[
            Scored(*pair, tuple(s), ("",) * 4) for pair, s in zip(pairs, told.tolist(), strict=True)
        ],
    )
    with torch.no_grad():
        both, alone = (objective(Plan(ranked=ranked), how.stages[i]) for i in (0, 1))
        objective.inputs.examples = taught
        asked = [(i, [0, 1, 2, 3]) for i in range(len(pairs))]
        score = objective(Plan(scored=asked), how.stages[2])["score"]
        if first_digit:  # of a teacher's score the rest of a number is learned as well
            assert float(score) > float(both["assume"])
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(asking, "REST", 0.0)
                score = objective(Plan(scored=asked), how.stages[2])["score"]
    assert set(both) == {"assume", "rank"}
    assert set(alone) == {"rank"}
    assert float(both["rank"]) == pytest.approx(float(alone["rank"]), abs=1e-5)
    assert float(both["assume"]) == pytest.approx(float(score), abs=1e-4)
