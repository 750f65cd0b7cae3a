"""What a vision tower's layers say of whole images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_examples
import torch
from tiny_examples import recipe

from udfs import images
from udfs.training import adapter, examples, features, looks
from udfs.training.examples import Examples
from udfs.training.student import Student

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    return examples.read(tiny_examples.write(tmp_path_factory.mktemp("examples"), 3))


@pytest.fixture(scope="module")
def student(internvl: Path) -> Student:
    return adapter.student(str(internvl), recipe({"weights": {"rank": 1}}))


def test_two_layers_tell_their_mean_and_first_token_and_the_last_how_far_tokens_spread(
    student: Student, data: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looks, "EARLIER", 0.5)  # of two layers the first
    found = looks.looks(tmp_path, student, data.images)
    tower, fit = student.core.vision_tower, student.recipe.prompt.image_fit
    assert [len(kind) for kind in found] == [len(data.images)] * 5
    for at in (0, 1):
        pixels = features.pixels(student, [images.decode(data.images[at], fit)])
        with torch.no_grad():
            states = tower(pixels, output_hidden_states=True).hidden_states
        earlier, last = (
            torch.nn.functional.layer_norm(states[depth][0], states[depth].shape[-1:]).numpy()
            for depth in (1, 2)
        )
        wanted = [earlier.mean(0), earlier[0], last.mean(0), last[0], last.std(0, ddof=1)]
        for kind, one in zip(found, wanted, strict=True):
            assert np.allclose(kind[at], one, atol=1e-4)


def test_they_are_kept_for_these_images_alone(
    student: Student, data: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = looks.looks(tmp_path, student, data.images)
    with monkeypatch.context() as patch:
        patch.setattr(looks, "_pooled", lambda *_: pytest.fail("looked again"))
        again = looks.looks(tmp_path, student, data.images)
    assert np.array_equal(np.stack(again), np.stack(found))
    others = looks.looks(tmp_path, student, data.images[::-1])
    assert np.allclose(np.stack(others)[:, ::-1], np.stack(found), atol=1e-5)
    assert not np.allclose(np.stack(others), np.stack(found), atol=1e-2)
