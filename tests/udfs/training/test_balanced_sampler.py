"""What an epoch sees: flat over the values of the scores, the same for the same seed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tiny_examples

from udfs.core.metrics import METRICS
from udfs.training import examples
from udfs.training.balanced_sampler import BINS, MOST_REPEATS, BalancedSampler, Item, balanced


def entropy_of(scores: np.ndarray) -> float:
    """Entropy of a histogram over BINS, 1 where it is uniform."""
    counts = np.bincount(np.minimum(scores // 10, BINS - 1).astype(int), minlength=BINS)
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log(p)).sum() / np.log(BINS))


def test_a_clustered_teacher_becomes_uniform_where_each_bin_has_rows() -> None:
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.uniform(10 * b, 10 * b + 10, 40) for b in range(10)])
    scores = np.concatenate([scores, rng.uniform(80, 90, 600)])
    drawn = balanced(scores, np.random.default_rng(1))
    assert len(drawn) == len(scores)
    assert entropy_of(scores) < 0.75
    assert entropy_of(scores[drawn]) > 0.99


def test_no_row_is_drawn_much_more_often_than_its_even_share() -> None:
    scores = np.array([5.0] + [95.0] * 99)
    times = Counter(balanced(scores, np.random.default_rng(0)).tolist())
    assert times[0] <= 2 * MOST_REPEATS
    assert sum(times.values()) == 100


@pytest.mark.parametrize("scores", [[], [0.0], [100.0, 100.0], [0.0, 50.0, 100.0]])
def test_small_tables_are_drawn_whole(scores: list[float]) -> None:
    drawn = balanced(np.array(scores), np.random.default_rng(3))
    assert len(drawn) == len(scores)
    assert set(drawn.tolist()) <= set(range(len(scores)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_examples.write(tmp_path_factory.mktemp("examples") / "a", range(12))


def test_an_epoch_is_a_function_of_seed_and_number(folder: Path) -> None:
    found = examples.read(folder)
    one, two = (BalancedSampler(found, 0.25, 8, seed=7) for _ in range(2))
    first, again = list(one), list(two)
    assert first == again
    assert len(first) == len(one)
    one.set_epoch(1)
    assert list(one) != first
    assert len(list(one)) == len(first)
    one.set_epoch(0)
    assert list(one) == first
    assert list(BalancedSampler(found, 0.25, 8, seed=8)) != first


def test_items_hold_every_question_of_a_caption_and_the_share_of_conversations(
    folder: Path,
) -> None:
    found = examples.read(folder)
    items = list(BalancedSampler(found, 0.5, 8, seed=0))
    talks = [item for item in items if item.conversation is not None]
    assert len(talks) == len(items) - len(talks)
    assert {item.conversation for item in talks} == {0, 1}
    metrics = Counter(row.metric for item in items for _, rows in item.captions for row in rows)
    assert metrics == {m: 24 for m in range(len(METRICS))}
    for item in items:
        for caption, rows in item.captions:
            assert {(row.image, row.caption) for row in rows} == {(item.image, caption)}
            assert len({row.metric for row in rows}) == len(rows)


def test_an_image_of_many_captions_is_split(folder: Path) -> None:
    items = list(BalancedSampler(examples.read(folder), 0.0, 1, seed=0))
    assert {len(item.captions) for item in items} == {1}
    assert all(isinstance(item, Item) for item in items)
