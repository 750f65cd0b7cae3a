"""A layer that compares, let to tell how far caption and image are apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_examples
import tiny_models
import torch
from pydantic import ValidationError
from tiny_examples import TOLD, recipe

from udfs.training import adapter, comparing, examples, features, low_rank, measuring
from udfs.training.comparing import Seen, projections
from udfs.training.objective import Objective
from udfs.training.plans import Planner
from udfs.training.student import Student
from udfs.training.train import train

COUPLES = TOLD + 1  # and the constant
RANK = 3 * COUPLES
LORA: dict[str, Any] = {"rank": COUPLES, "rank_pattern": {r"layers\.1\.mlp\..*_proj": RANK}}
COMPARE: dict[str, Any] = {"weights": {"compare": 1}, "compare_depth": 1}
MEASURE: dict[str, Any] = {"weights": {"score": 1}, "measure": True}


def learner(base: Path, **lora: Any) -> Student:
    return adapter.student(str(base), recipe(COMPARE, lora=LORA | lora))


def seen(student: Student, count: int) -> Seen:
    """States that hold coordinates of caption and image, and a constant, in directions of their
    own; where something else is asked they hold others."""
    torch.manual_seed(count)
    size = student.core.language_model.config.hidden_size
    captions, images = torch.randn(count, TOLD), torch.randn(count, TOLD)
    held = torch.cat([captions, images, torch.ones(count, 1)], dim=1)
    draw = torch.Generator().manual_seed(0)
    directions = torch.linalg.qr(torch.randn(size, 2 * TOLD + 1, generator=draw))[0]
    asked = held @ directions.T + 0.01 * torch.randn(count, size)
    elsewhere = 0.1 * torch.randn(count, size)
    return Seen(torch.stack([elsewhere, asked, elsewhere], dim=1), captions, images)


def primed(student: Student) -> Student:
    """A layer that tells the product, most of it by a few channels that are loud."""
    mlp = student.core.language_model.layers[1].mlp
    for layer in (mlp.gate_proj, mlp.up_proj):  # a tiny model has no quiet channels
        layer.base_layer.weight.data[: 4 * RANK] *= 0.02
    comparing.prime(student, 1, [seen(student, 300)])
    return student


@torch.no_grad()
def test_half_of_what_is_told_is_the_distance_then(internvl: Path) -> None:
    student = primed(learner(internvl))
    mlp, new = student.core.language_model.layers[1].mlp, seen(student, 200)
    asked = new.states[:, measuring.AT]
    direction, told = measuring._told(projections(student, 1), asked)
    before = mlp(asked)
    line = measuring.measure(student, 1, iter([seen(student, 300), seen(student, 301)]))
    assert line.startswith(f"measure: the distance in {TOLD} coordinates")
    change = mlp(asked) - before
    distance = (new.captions - new.images).square().sum(dim=1)
    alike = torch.corrcoef(torch.stack([distance, told]))[0, 1]
    wanted = (distance - distance.mean()) * (told.std() / distance.std()).copysign(alike)
    into = change @ direction + measuring.SHARE * (told - told.mean())
    both = torch.stack([into, measuring.SHARE * wanted])
    assert float(torch.corrcoef(both)[0, 1]) > 0.98
    assert float(both[0].std() / both[1].std()) == pytest.approx(1, abs=0.15)
    assert abs(float(into.mean())) < 0.3 * float(both[1].std())  # as high as before, in the mean
    aside = change - torch.outer(change @ direction, direction)
    assert float(aside.std()) < 0.1 * float((change @ direction).std() / len(direction) ** 0.5)


@torch.no_grad()
def test_couples_square_exactly_however_loud(internvl: Path) -> None:
    student = primed(learner(internvl))
    mlp, size = projections(student, 1), student.core.language_model.config.hidden_size
    reader, direction = (
        torch.randn(size, 2),
        torch.nn.functional.normalize(torch.randn(size), dim=0),
    )
    states, channels = torch.randn(50, size), torch.tensor([7, 3, 20, 11])
    measuring._make_room(mlp, RANK - 4, direction)
    whole, layer = measuring._active(mlp, states), mlp[-1]
    whole[:, channels] = 0
    rest = whole @ low_rank.whole(layer).T
    measuring._give_channels(mlp, channels, reader, direction, torch.tensor([2.0, -30.0]))
    found = layer(measuring._active(mlp, states))
    squares = (states @ reader).square() @ torch.tensor([2.0, -30.0])
    assert torch.allclose(found - rest, torch.outer(squares, direction), rtol=1e-3, atol=1e-2)


def test_it_needs_room_and_something_told(internvl: Path) -> None:
    with pytest.raises(ValueError, match="adapters of one rank, 6 at least"):
        measuring.measure(learner(internvl, rank_pattern={}), 1, [])
    with pytest.raises(ValueError, match="adapters of one rank, 6 at least"):
        measuring.measure(learner(internvl, rank_pattern={"down_proj": 9}), 1, [])
    student = learner(internvl)
    with pytest.raises(ValueError, match="told nothing yet"):
        measuring.measure(student, 1, [seen(student, 30)])
    with pytest.raises(ValidationError, match="measure needs a stage with compare before"):
        recipe(MEASURE, COMPARE)


def test_it_goes_by_what_was_compared_before_it() -> None:
    how = recipe(COMPARE, MEASURE, COMPARE | {"compare_depth": 0}, MEASURE)
    assert [how.compared(n) for n in (0, 1, 3)] == [None, how.stages[0], how.stages[2]]


def test_a_rank_of_its_own_counts_as_much(internvl: Path) -> None:
    student = learner(internvl)
    wide, narrow = (student.core.language_model.layers[i].mlp.up_proj for i in (1, 0))
    assert low_rank.matrices(wide)[0].shape[0] == RANK
    assert low_rank.matrices(narrow)[0].shape[0] == COUPLES
    assert low_rank.matrices(wide)[2] == low_rank.matrices(narrow)[2]


def test_an_adapter_holds_what_fits(internvl: Path) -> None:
    up = learner(internvl).core.language_model.layers[1].mlp.up_proj
    low, high, _ = low_rank.matrices(up)
    draw = torch.Generator().manual_seed(0)
    u, v = (torch.randn(n, RANK + 2, generator=draw) for n in (len(high), low.shape[1]))
    whole = u @ torch.diag(2.0 ** -torch.arange(RANK + 2)) @ v.T
    for rank in (RANK, 2):
        low_rank.add(up, whole - low_rank.added(up), rank)
        a, s, b = torch.linalg.svd(whole)
        best = a[:, :rank] @ torch.diag(s[:rank]) @ b[:rank]
        assert torch.allclose(low_rank.added(up), best, atol=1e-4)
        assert not low[rank:].any()
        assert not high[:, rank:].any()


def test_bfloat16_is_no_hindrance(internvl: Path, tmp_path: Path) -> None:
    data = examples.read(tiny_examples.write(tmp_path / "examples"))
    encoder = tiny_models.sentence_encoder(tmp_path / "encoder")
    how = recipe(COMPARE, sentence_encoder=encoder, lora=LORA, dtype="bfloat16")
    student = adapter.student(str(internvl), how)
    read = features.cached(tmp_path / "features", student, data.images)
    objective, planner = Objective(student, data, read, how), Planner(data, how)
    objective.inputs.read_sentences(tmp_path)
    objective.prime(planner, how.stages[0])
    assert objective.measure(planner, how.stages[0]).startswith("measure: ")
    added = low_rank.added(projections(student, 1)[-1])
    assert added.any()
    assert torch.isfinite(added).all()


def test_a_training_that_was_killed_ends_with_the_same(internvl: Path, tmp_path: Path) -> None:
    data = examples.read(tiny_examples.write(tmp_path / "examples"))
    encoder = tiny_models.sentence_encoder(tmp_path / "encoder")
    score = {"weights": {"score": 1}, "steps": 3, "averaged": 2}  # begins with the mean of both
    stages = (COMPARE | {"steps": 1}, MEASURE | {"steps": 0}, score)
    how = recipe(*stages, sentence_encoder=encoder, lora=LORA | {"dropout": 0.5})
    ends, lines = list[torch.Tensor](), list[str]()
    for name, stops in (("once", ()), ("killed", (1, 2))):
        for stop in (*stops, None):
            student = adapter.student(str(internvl), how)
            read = features.cached(tmp_path / "features", student, data.images)
            options: dict[str, Any] = {"progress": lines.append, "every_seconds": 0}
            train(student, data, read, how, tmp_path / name, stop_after=stop, **options)
        layers = [*projections(student, 1), student.core.language_model.layers[0].mlp.up_proj]
        ends.append(torch.cat([low_rank.added(layer).detach().flatten() for layer in layers]))
        dropouts = [type(layer.lora_dropout["default"]) for layer in layers]
        assert dropouts == [torch.nn.Identity] * 3 + [torch.nn.Dropout]
    assert torch.equal(*ends)
    assert sum(line.startswith("measure: ") for line in lines) == 2  # not again where it goes on
