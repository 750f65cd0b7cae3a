"""Captions and images compared: common coordinates in closed form, and a layer that multiplies."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_examples
import tiny_models
import torch
from tiny_examples import TOLD, recipe, two_sides

from udfs.training import adapter, comparing, examples, features, low_rank
from udfs.training.common_space import common_space
from udfs.training.comparing import Seen
from udfs.training.objective import Objective
from udfs.training.plans import Planner
from udfs.training.student import Student

HOW = recipe({"weights": {"compare": 1}, "compare_depth": 1}, lora={"rank": 4})


def test_a_common_space_finds_the_image_of_a_caption_that_it_has_not_seen() -> None:
    captions, images = two_sides(600, 0)
    seen = [(i, i) for i in range(500)]
    found = common_space(captions, images, seen, TOLD)
    assert found.captions.shape == found.images.shape == (600, TOLD)
    match = found.captions[500:] @ found.images[500:].T
    wins = float((match.diagonal()[:, None] > match).mean())
    assert wins > 0.9
    shuffled = [(i, (i + 1) % 500) for i in range(500)]
    none = common_space(captions, images, shuffled, TOLD)
    match = none.captions[500:] @ none.images[500:].T
    assert float((match.diagonal()[:, None] > match).mean()) < 0.7


@pytest.fixture
def student(tmp_path: Path) -> Student:
    return adapter.student(str(tiny_models.internvl(tmp_path / "model")), HOW)


def seen(student: Student, count: int) -> Seen:
    """States that hold coordinates of caption and image in directions of their own."""
    torch.manual_seed(count)
    size = student.core.language_model.config.hidden_size
    captions, images = torch.randn(count, TOLD), torch.randn(count, TOLD)
    directions = torch.linalg.qr(
        torch.randn(size, 2 * TOLD, generator=torch.Generator().manual_seed(0))
    )[0]
    states = torch.cat([captions, images], dim=1) @ directions.T + 0.01 * torch.randn(count, size)
    return Seen(states[:, None].expand(-1, 3, -1), captions, images)


@torch.no_grad()
def test_a_primed_layer_puts_out_the_inner_product(student: Student) -> None:
    mlp = student.core.language_model.layers[1].mlp
    for layer in (mlp.gate_proj, mlp.up_proj):  # a tiny model has no quiet channels
        layer.base_layer.weight[: 4 * TOLD] *= 0.02
    new = seen(student, 300)
    states = new.states[:, 0]
    before = mlp(states)
    comparing.prime(student, 1, iter([seen(student, 150), seen(student, 151)]))
    added = mlp(states) - before
    direction = mlp.down_proj.lora_B["default"].weight[:, 0]
    direction = direction / direction.norm()
    match = (new.captions * new.images).sum(dim=1)
    both = torch.corrcoef(torch.stack([added @ direction, match]))
    assert abs(float(both[0, 1])) > 0.9
    # No louder than the layer is anyway.
    assert 0.1 < float((added @ direction).std() / len(direction) ** 0.5 / before.std()) < 10


def test_what_is_primed_reads_what_stands_there(student: Student) -> None:
    comparing.prime(student, 1, iter([seen(student, 200)]))
    new = seen(student, 100)
    gate, up, _ = comparing.projections(student, 1)
    assert comparing._missed(comparing._read(gate, new.states), new.captions) < 0.05
    assert comparing._missed(comparing._read(up, new.states), new.images) < 0.05
    assert comparing._missed(comparing._read(up, new.states), new.captions) > 0.9


def test_captions_are_read_behind_images_as_scoring_reads_them(tmp_path: Path) -> None:
    data = examples.read(tiny_examples.write(tmp_path / "examples"))
    encoder = tiny_models.sentence_encoder(tmp_path / "encoder")
    how = HOW.model_copy(update={"sentence_encoder": encoder})
    student = adapter.student(str(tiny_models.internvl(tmp_path / "model")), how)
    objective = Objective(student, data, features.cached(tmp_path, student, data.images), how)
    objective.inputs.read_sentences(tmp_path)
    stage = how.stages[0]
    plan = Planner(data, how).plan(stage, 0)
    assert len(plan.texts) == stage.rivals * len(plan.pairs)
    with torch.no_grad():
        space = comparing.space(objective.inputs)
        found = comparing.look(objective.inputs, space, plan.pairs, plan.texts, stage, 0)
        image, caption = plan.pairs[1]
        at = 1 * (1 + int(stage.rivals))  # the second image's own caption
        tree, last = student.with_image()
        tip = objective.inputs.tell(tree, last, caption, stage)
        tree.extend(tip, student.template.questions[1])
        alone = student.before_mlp([tree], objective.inputs.images([image], stage, 0), 1)[0]
    assert torch.allclose(found.states[at, 0], alone[tip], atol=1e-4)
    assert torch.allclose(found.states[at, 2], alone[len(tree) - 1], atol=1e-4)
    index = data.texts().index(caption)
    assert torch.equal(found.captions[at], torch.from_numpy(space.captions[index]))
    assert torch.equal(found.images[at + 1], torch.from_numpy(space.images[image]))


def test_bfloat16_is_no_hindrance(tmp_path: Path) -> None:
    data = examples.read(tiny_examples.write(tmp_path / "examples"))
    encoder = tiny_models.sentence_encoder(tmp_path / "encoder")
    how = HOW.model_copy(update={"sentence_encoder": encoder, "dtype": "bfloat16"})
    student = adapter.student(str(tiny_models.internvl(tmp_path / "model")), how)
    objective = Objective(student, data, features.cached(tmp_path, student, data.images), how)
    objective.inputs.read_sentences(tmp_path)
    objective.prime(Planner(data, how), how.stages[0])  # outside of a step's autocast
    primed = low_rank.added(comparing.projections(student, 1)[-1])
    assert primed.any()
    assert torch.isfinite(primed).all()


def test_a_layer_that_is_compiled_is_read_all_the_same(student: Student) -> None:
    layer = student.core.language_model.layers[1]
    tree, _ = student.with_image()
    size = student.core.language_model.config.hidden_size
    shown = torch.randn(1, len(student.head.image), size)
    with torch.no_grad():
        plain = student.before_mlp([tree], shown, 1)
        layer._compiled_call_impl = lambda *_, **__: pytest.fail("hooks would not be called")
        assert torch.equal(student.before_mlp([tree], shown, 1), plain)
    assert layer._compiled_call_impl is not None


def test_comparing_needs_an_adapter_and_such_a_layer(tmp_path: Path, student: Student) -> None:
    with pytest.raises(ValueError, match="adapter"):
        recipe({"weights": {"compare": 1}}, lora=None)
    with pytest.raises(ValueError, match="trains the layers below"):
        recipe({"weights": {"compare": 1}, "frozen_layers": 2})
    data = examples.read(tiny_examples.write(tmp_path / "examples"))
    deep = recipe({"weights": {"compare": 1}, "compare_depth": 2})
    with pytest.raises(ValueError, match="compare_depth: the language model has 2 layers"):
        Objective(student, data, [], deep)
