"""What training sees: balance, altered captions, plans of steps; and the read-out of numbers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tiny_examples
import tiny_models
import torch
from tiny_examples import recipe

from udfs.scoring import number_tree, readout
from udfs.training import altered_captions, examples, garbled_captions, sampling
from udfs.training.examples import Examples, ExamplesError
from udfs.training.number_probabilities import log_probabilities
from udfs.training.score_balance import BINS, MOST_REPEATS, balanced
from udfs.training.step_plans import Planner


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    return examples.read(tiny_examples.write(tmp_path_factory.mktemp("examples")))


@pytest.mark.parametrize("merges", [False, True])
def test_numbers_are_read_as_in_scoring(merges: bool) -> None:
    tokenizer = tiny_models.tokenizer(merges=merges)
    encode = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    _, tree = number_tree.build(encode, "Score: ")
    torch.manual_seed(0)
    logits = torch.randn(3, 4, len(tree.nodes), len(tokenizer)) * 6
    logits[0, 0, 1 % len(tree.nodes), tree.nodes[-1].children[0]] = 60.0  # sure to go on
    logits.requires_grad_()
    found = log_probabilities(logits, tree)
    expected = readout.distributions(logits.detach(), tree)
    assert np.abs(found.detach().exp().numpy() - expected).max() < 1e-5
    found.sum().backward()  # type: ignore[no-untyped-call, unused-ignore]
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.abs().max() > 0


def histogram(scores: np.ndarray) -> list[int]:
    return [int(n) for n in np.histogram(scores, bins=BINS, range=(0, 100))[0]]


def test_balance_is_flat_where_the_data_allow() -> None:
    rng = np.random.default_rng(0)
    scores = np.concatenate(
        [rng.integers(90, 101, 700), rng.integers(0, 90, 290), np.full(10, 35)]
    ).astype(float)
    keys = [f"k{i}" for i in range(len(scores))]
    drawn = balanced(keys, scores, len(keys), "seed")
    before, after = histogram(scores), histogram(scores[drawn])
    assert len(drawn) == len(keys)
    assert max(before) > 20 * min(before)
    thin = [n for n, most in zip(after, before, strict=True) if n == MOST_REPEATS * most]
    others = [n for n, most in zip(after, before, strict=True) if n < MOST_REPEATS * most]
    assert max(others) - min(others) <= 1
    assert all(n <= min(others) for n in thin)  # taken out as far as they may be
    repeats = Counter(drawn.tolist())
    for count, rows in zip(before, after, strict=True):
        assert rows <= MOST_REPEATS * count
    for row, times in repeats.items():  # all once before any twice
        own = np.flatnonzero(np.minimum(scores // BINS, BINS - 1) == min(scores[row] // BINS, 9))
        assert times - min(repeats[int(other)] for other in own) <= 1


def test_balance_depends_on_rows_and_seed_alone() -> None:
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 101, 300).astype(float)
    keys = [f"k{i}" for i in range(300)]
    first = [keys[i] for i in balanced(keys, scores, 200, "a")]
    order = rng.permutation(300)
    again = balanced([keys[i] for i in order], scores[order], 200, "a")
    assert first == [keys[order[i]] for i in again]
    assert first != [keys[i] for i in balanced(keys, scores, 200, "b")]
    assert len(balanced([], np.zeros(0), 5, "a")) == 0


CAPTIONS = (
    "Two red cars stand on the left of a TALL building.",
    "The left and right halves are black and white.",
    "A man and a woman, one sitting and one standing, above and below a map.",
    "Several boys; two boys run up and down. Up!",
)


def test_an_altered_caption_differs_in_words_of_a_kind() -> None:
    kinds = {
        word: [set(kind) for kind in altered_captions.KINDS if word in kind]
        for word in altered_captions._RIVALS
    }
    seen: set[tuple[str, str]] = set()
    for caption in CAPTIONS:
        for i in range(200):
            changed = altered_captions.altered(caption, sampling.rng(i, caption))
            assert changed is not None
            assert changed != caption
            old, new = caption.split(), changed.split()
            assert len(old) == len(new)
            became: dict[str, str] = {}
            for a, b in zip(old, new, strict=True):
                one, two = a.strip(".,;!").lower(), b.strip(".,;!").lower()
                if one != two:
                    assert any(two in kind for kind in kinds[one]), (a, b)
                    seen.add((one, two))
                assert a.isupper() == b.isupper()
                assert a[0].isupper() == b[0].isupper()
                assert a[-1] == b[-1] or a[-1].isalpha()
                if one in kinds:
                    assert became.setdefault(one, two) == two  # alike everywhere
            assert len(set(became.values())) == len(became), changed  # no two made one
    assert {("left", "right"), ("right", "left"), ("man", "woman"), ("woman", "man")} <= seen


def test_a_caption_without_such_words_has_no_altered_copy() -> None:
    assert altered_captions.altered("Nothing here can change.", sampling.rng(0)) is None


def test_a_garbled_caption_is_made_of_the_caption_and_is_not_it() -> None:
    caption = "Two cats sleep on a red mat, one of them large."
    words = sorted(caption.split())
    made = [garbled_captions.garbled(caption, sampling.rng(i, "garbled")) for i in range(60)]
    found = {text for text in made if text}  # now and then nothing comes of it
    assert caption not in found
    assert len(found) > 50
    shuffled = [text for text in found if sorted(text.split()) == words]
    shorter = [text for text in found if len(text.split()) < len(words)]
    misread = [text for text in found if len(text) == len(caption)]
    assert min(len(shuffled), len(shorter), len(misread)) > 5
    assert all(set(text.split()) <= set(words) for text in shorter)
    assert garbled_captions.garbled("A red cat.", sampling.rng(0)) is None


def test_each_row_comes_once_an_epoch() -> None:
    seen = [row for step in range(12) for row in sampling.turn(7, 5, step, "seed")]
    assert len(seen) == 60
    for start in range(0, 56, 7):
        assert sorted(seen[start : start + 7]) == list(range(7))
    assert seen[:7] != seen[7:14]
    assert sampling.turn(7, 5, 4, "seed") == seen[20:25]  # a pure function of its key
    assert sampling.turn(7, 5, 4, "other") != seen[20:25]


def test_plans_are_a_pure_function_of_the_turn(data: Examples) -> None:
    how = recipe({"weights": {"rank": 1, "score": 1}, "scored": 5, "rivals": 3})
    near = np.array([[j for j in range(16) if j != i] for i in range(16)])
    one, other = Planner(data, how, near), Planner(data, how, near)
    stage = how.stages[0]
    plans = [one.plan(stage, turn) for turn in range(20)]
    assert [other.plan(stage, turn) for turn in reversed(range(20))] == plans[::-1]
    assert all(len(plan.scored) == 5 and len(plan.ranked) == 3 for plan in plans)
    # Scored pairs come epoch by epoch, without a gap at the border.
    told = [asked for plan in plans for asked in plan.scored]
    epochs = [sampling.epoch_of_scores(data, (how.seed, stage.name), e) for e in range(4)]
    assert told == [asked for epoch in epochs for asked in epoch][: len(told)]
    assert len(epochs[0]) < len(told)
    for plan in plans:
        for ranked in plan.ranked:
            own = data.captions[ranked.image]
            assert set(ranked.own) <= set(own)
            assert ranked.rivals
            assert not set(ranked.rivals) & set(own)


def test_examples_are_the_same_in_any_order_of_rows(tmp_path: Path, data: Examples) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pairs, told = tiny_examples.pairs(16)[::-1], tiny_examples.instructions(16)[::-1]
    seen: set[str] = set()
    for row in pairs:  # an image once is enough
        if row["uid"] in seen:
            row["image"] = None
        seen.add(row["uid"])
    pq.write_table(pa.Table.from_pylist(pairs), tmp_path / "pairs.parquet")
    pq.write_table(pa.Table.from_pylist(told), tmp_path / "instructions.parquet")
    again = examples.read(tmp_path)
    assert again == data
    assert examples.fingerprint(again) == examples.fingerprint(data)
    told[0]["score"] += 1
    pq.write_table(pa.Table.from_pylist(told), tmp_path / "instructions.parquet")
    assert examples.fingerprint(examples.read(tmp_path)) != examples.fingerprint(data)
    told[0]["uid"] = "nobody"
    pq.write_table(pa.Table.from_pylist(told), tmp_path / "instructions.parquet")
    with pytest.raises(ExamplesError, match="no image for uid nobody"):
        examples.read(tmp_path)


@pytest.mark.parametrize(
    ("weights", "lacks"),
    [({"score": 1}, "scored pairs"), ({"reason": 1}, "reasons"), ({"rank": 1}, "captions")],
)
def test_a_stage_without_examples_is_refused(weights: dict[str, float], lacks: str) -> None:
    nothing = Examples(["u"], [tiny_examples.image(0)], [""], [[]], [])
    with pytest.raises(ExamplesError, match=f"stage 'stage 0'.*{lacks}.*there are none"):
        Planner(nothing, recipe({"weights": weights}))


def test_an_image_is_ranked_by_as_many_captions_of_its_own_as_asked(data: Examples) -> None:
    two = next(i for i, own in enumerate(data.captions) if len(own) == 2)
    one = next(i for i, own in enumerate(data.captions) if len(own) == 1)
    found = [sampling.ranked(data, i, 2, None, ("seed",), 2) for i in (two, one)]
    assert [sorted(image.own) for image in found] == [sorted(data.captions[i]) for i in (two, one)]
    for image in found:
        assert len(image.own) == len(image.altered) == len(image.garbled)
        assert image.rivals
        assert not set(image.rivals) & set(image.own)
        assert not any(image.garbled[1:])  # one is enough
    fewer = sampling.ranked(data, two, 2, None, ("seed",))
    assert fewer.own == found[0].own[:1]
    assert fewer.rivals == found[0].rivals


def test_some_images_have_rivals(data: Examples) -> None:
    one = next(i for i, own in enumerate(data.captions) if own)

    def mean(rivals: float) -> float:
        found = [sampling.ranked(data, one, rivals, None, (turn,)).rivals for turn in range(400)]
        return float(np.mean([len(each) for each in found]))

    assert mean(2) > mean(1) > 0
    assert 0.2 < mean(0.3) / mean(1) < 0.4
