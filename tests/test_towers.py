"""Two linear towers, trained on what captions and images have in common."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from tiny_examples import two_sides

from udfs.training import towers as module
from udfs.training.towers import TOWERS, joined, towers

pytestmark = pytest.mark.usefixtures("one_thread")


def test_they_tell_whose_an_unseen_caption_is() -> None:
    captions, images = two_sides(600, 1)
    right = [(i, i) for i in range(400)]
    space = towers(captions, images, right, ["one"] * 600)
    unseen = (space.images @ space.captions.T)[400:, 400:]
    assert roc_auc_score(np.eye(200).ravel(), unseen.ravel()) > 0.9
    assert np.abs(unseen).max() <= 1 + 1e-6
    assert np.allclose(np.linalg.norm(space.captions, axis=1), 1, atol=1e-5)


def test_they_depend_on_nothing_but_what_is_given() -> None:
    captions, images = two_sides(60, 2)
    right, groups = [(i, i) for i in range(60)], [f"book {i % 3}" for i in range(60)]
    torch.manual_seed(1)
    once = towers(captions, images, right, groups)
    before = torch.get_rng_state()
    again = towers(captions, images, right, groups)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(once.captions, again.captions)
    assert np.array_equal(once.images, again.images)


def test_of_several_captions_of_an_image_all_are_learned() -> None:
    captions, images = two_sides(300, 3)
    strangers = np.random.default_rng(0).normal(size=captions.shape).astype(np.float32)
    told = np.concatenate([strangers, captions])
    both = [(i, t) for i in range(300) for t in (i, 300 + i)]
    space = towers(told, images, both, ["one"] * 300)
    found = space.images @ space.captions[300:].T
    assert roc_auc_score(np.eye(300).ravel(), found.ravel()) > 0.85


def test_more_than_one_start_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    captions, images = two_sides(50, 4)
    right = [(i, i) for i in range(50)]
    together = towers(captions, images, right, ["one"] * 50)
    monkeypatch.setattr(module, "TOWERS", 1)
    alone = towers(captions, images, right, ["one"] * 50)
    size = alone.captions.shape[1]
    assert together.captions.shape[1] == TOWERS * size
    assert np.allclose(together.captions[:, :size] * TOWERS**0.5, alone.captions, atol=1e-6)


def test_of_kinds_side_by_side_none_drowns_another() -> None:
    quiet, loud = np.random.default_rng(0).normal(size=(2, 40, 6)).astype(np.float32)
    found = joined([quiet, 1000 * loud + 7])
    assert found.shape == (40, 12)
    assert np.allclose(found, joined([quiet, loud]), atol=1e-3)
    assert np.allclose(found.mean(axis=0), 0, atol=1e-4)
    assert np.square(found[:, 6:]).mean() == pytest.approx(1, abs=1e-4)


def test_every_other_epoch_goes_group_by_group() -> None:
    groups = [f"book {i % 5}" for i in range(50)]
    draw = np.random.default_rng(0)
    mixed, sorted_ = (module._order(range(50), groups, epoch, draw).tolist() for epoch in (0, 1))
    for order in (mixed, sorted_):
        assert sorted(order) == list(range(50))
    changes = [
        sum(groups[a] != groups[b] for a, b in zip(order, order[1:], strict=False))
        for order in (mixed, sorted_)
    ]
    assert changes[0] > 20
    assert changes[1] == 4
