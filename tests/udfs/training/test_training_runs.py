"""Fine-tuning on tiny models: losses fall, and a training that stops goes on to the same bits."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_examples
import torch
from tiny_examples import recipe

from udfs.training import adapter, examples, features
from udfs.training.checkpoints import CheckpointError
from udfs.training.examples import Examples
from udfs.training.recipe import Recipe
from udfs.training.train import train

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    return examples.read(tiny_examples.write(tmp_path_factory.mktemp("examples")))


def run(
    folder: Path, data: Examples, how: Recipe, work: Path, **options: Any
) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    """Train a fresh student in `work`; its history without times, and its learned weights."""
    torch.manual_seed(time.monotonic_ns() % 2**31)  # nothing may depend on it
    student = adapter.student(str(folder), how)
    read = features.cached(work.parent / "features", student, data.images)
    history = train(student, data, read, how, work, progress=lambda _: None, **options)
    weights = {n: w.detach().clone() for n, w in student.model.named_parameters()}
    steps = [{k: v for k, v in step.items() if k != "seconds"} for step in history.steps]
    return steps, {n: w for n, w in weights.items() if "lora" in n or "projector" in n}


def test_the_losses_fall(internvl: Path, tmp_path: Path) -> None:
    few = examples.read(tiny_examples.write(tmp_path / "examples", 4))
    how = recipe(
        # At the common rate it may stay on its plateau, as the last bits of this processor have it.
        {"steps": 60, "weights": {"rank": 1}, "ranked": 4, "learning_rate": 2e-3},
        {"steps": 120, "weights": {"score": 1, "reason": 0.3}},
    )
    steps, _ = run(internvl, few, how, tmp_path / "work")
    losses = (["rank"], ["score", "reason"])
    for stage, names in zip(how.stages, losses, strict=True):
        own = [step for step in steps if step["stage"] == stage.name]
        assert len(own) == stage.steps
        for loss in names:
            first, last = (
                np.mean([step[loss] for step in part if loss in step])  # a step may have no reason
                for part in (own[:5], own[-5:])
            )
            assert last < 0.9 * first, (stage.name, loss, first, last)


@pytest.fixture(scope="module")
def resumed() -> Recipe:
    """A bit of everything that a training that goes on has to have again."""
    return recipe(
        {"weights": {"rank": 1}, "steps": 4},
        {"weights": {"rank": 1, "score": 1, "reason": 0.3}, "steps": 5, "scored": 3},
        {"weights": {"rank": 1}, "steps": 3, "own": 2, "frozen_layers": 1},
        {
            "weights": {"rank": 1, "score": 1},
            "steps": 3,
            "sampled_numbers": True,
            "averaged": 2,
            "rivals": 1.5,
        },
        lora={"rank": 4, "dropout": 0.2},
        accumulate=2,
        averaged=2,
        views=2,
    )


@pytest.fixture(scope="module")
def unbroken(
    internvl: Path, data: Examples, resumed: Recipe, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    return run(internvl, data, resumed, tmp_path_factory.mktemp("unbroken") / "work")


def assert_same(one: Any, other: Any) -> None:
    assert one[0] == other[0]
    assert one[1].keys() == other[1].keys()
    for name, weight in one[1].items():
        assert torch.equal(weight, other[1][name]), name


@pytest.mark.parametrize("steps", [1, 4, 7, 11, 13, 14])
def test_a_training_that_stops_goes_on_to_the_same_end(
    internvl: Path, data: Examples, resumed: Recipe, tmp_path: Path, steps: int, unbroken: Any
) -> None:
    work = tmp_path / "work"
    run(internvl, data, resumed, work, every_seconds=0, stop_after=steps)
    assert len(list(work.glob("checkpoint-*"))) == (steps > 1)
    assert_same(run(internvl, data, resumed, work, every_seconds=0), unbroken)
    assert_same(run(internvl, data, resumed, work), unbroken)  # nothing left to do


def test_steps_that_are_made_ahead_are_the_same(
    internvl: Path, data: Examples, resumed: Recipe, tmp_path: Path, unbroken: Any
) -> None:
    assert_same(run(internvl, data, resumed, tmp_path / "work", workers=2), unbroken)


def test_a_killed_training_goes_on_to_the_same_end(
    internvl: Path, data: Examples, resumed: Recipe, tmp_path: Path, unbroken: Any
) -> None:
    work = tmp_path / "work"
    child = os.fork()
    if child == 0:  # never comes back: killed in the middle of a step or of a save
        torch.set_num_threads(1)
        try:
            run(internvl, data, resumed, work, every_seconds=0)
        finally:
            os._exit(1)
    deadline = time.monotonic() + 60
    while not list(work.glob("checkpoint-0-*2")) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert list(work.glob("checkpoint-*"))
    assert_same(run(internvl, data, resumed, work), unbroken)


def test_a_checkpoint_of_another_training_is_refused(
    internvl: Path, data: Examples, resumed: Recipe, tmp_path: Path
) -> None:
    run(internvl, data, resumed, tmp_path / "work", stop_after=4, fingerprint="one")
    with pytest.raises(CheckpointError, match="another recipe, base model or other examples"):
        run(internvl, data, resumed, tmp_path / "work", fingerprint="two")


def test_weights_are_the_mean_of_the_last_stages_ends(
    internvl: Path, data: Examples, tmp_path: Path
) -> None:
    stages = [{"weights": {"rank": 1}, "steps": 2}, {"weights": {"score": 1}, "steps": 2}]
    first = run(internvl, data, recipe(*stages[:1]), tmp_path / "first")[1]
    last = run(internvl, data, recipe(*stages), tmp_path / "last")[1]
    mean = run(internvl, data, recipe(*stages, averaged=2), tmp_path / "mean")[1]
    assert any(not torch.equal(first[name], last[name]) for name in last)
    for name, weight in mean.items():
        assert torch.allclose(weight, (first[name] + last[name]) / 2, atol=1e-7), name
    # A stage that begins with this mean, and stands still:
    still = {"weights": {"score": 1}, "steps": 1, "averaged": 2, "learning_rate": 1e-12}
    on = run(internvl, data, recipe(*stages, still), tmp_path / "on")[1]
    for name, weight in mean.items():
        assert torch.allclose(weight, on[name], atol=1e-7), name
    with pytest.raises(ValueError, match="averaged: 3, but there are 2 stages"):
        recipe(*stages, averaged=3)
    with pytest.raises(ValueError, match="stage 'stage 1': averaged: 2, but there are 1 stages"):
        recipe(stages[0], still)
