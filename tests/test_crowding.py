"""Captions that suit every image, and images that suit every caption, told and taken off."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from udfs.training import crowding as module
from udfs.training.common_space import CommonSpace
from udfs.training.crowding import NEAREST, crowding


def drawn(captions: int, images: int, seed: int = 0) -> CommonSpace:
    draw = np.random.default_rng(seed)
    told, shown = (draw.normal(size=(n, 8)).astype(np.float32) for n in (captions, images))
    return CommonSpace(told, shown)


def test_it_is_the_mean_of_the_nearest_of_the_other_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS", 7)
    space = drawn(90, 40)
    pairs = [(i % 30, t) for i, t in enumerate(range(10, 70))]  # each of 30 images twice
    found = crowding(space, pairs)
    assert found.images.shape == (40,)
    assert found.captions.shape == (90,)
    for at in (0, 35):  # one that is among the pairs, one that is not
        near = sorted(float(space.images[at] @ space.captions[t]) for t in range(10, 70))
        assert found.images[at] == pytest.approx(np.mean(near[-NEAREST:]), abs=1e-5)
        near = sorted(float(space.captions[at] @ space.images[i]) for i in range(30))
        assert found.captions[at] == pytest.approx(np.mean(near[-NEAREST:]), abs=1e-5)


def test_of_fewer_than_that_all_are_taken() -> None:
    space = drawn(3, 2)
    found = crowding(space, [(0, 0), (0, 2)])
    assert np.allclose(found.captions, space.captions @ space.images[0], atol=1e-6)
    assert np.allclose(found.images, space.images @ space.captions[[0, 2]].mean(axis=0), atol=1e-6)


def test_matches_are_told_better_without_what_all_have_in_common() -> None:
    draw = np.random.default_rng(1)
    meaning = draw.normal(size=(400, 30))
    told, shown = (meaning + draw.normal(size=meaning.shape) for _ in range(2))
    # Half of the captions, and of the images, lie where all of the other side do.
    hub = np.concatenate([np.full((400, 1), 3.0), draw.integers(2, size=(400, 1)) * 4.0], axis=1)
    space = CommonSpace(
        np.concatenate([told, hub], axis=1).astype(np.float32),
        np.concatenate([shown, hub[:, ::-1]], axis=1).astype(np.float32),
    )
    crowd = crowding(space, [(i, i) for i in range(200)])
    match = (space.images @ space.captions.T)[200:, 200:]
    freed = 2 * match - crowd.images[200:, None] - crowd.captions[None, 200:]
    labels = np.eye(200).ravel()
    plain, better = (roc_auc_score(labels, each.ravel()) for each in (match, freed))
    assert plain < 0.93
    assert better > plain + 0.03
