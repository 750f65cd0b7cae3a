"""The log odds that `attend` trains are those of the model's own attention."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import tiny_examples
import tiny_models
import torch
from tiny_examples import recipe

from udfs.training import adapter, examples, features
from udfs.training.attention import Kept, looks
from udfs.training.objective import Objective

HOW = recipe({"weights": {"attend": 1}, "attend_depths": [1]})
CAPTIONS = ("A red circle on grey ground.", "Two cats, one asleep.", "x")


@pytest.fixture(scope="module")
def objective(tmp_path_factory: pytest.TempPathFactory) -> Objective:
    """A student on a tiny model whose first layer hands no token anything of another, so that a
    caption's states are the same with an image before it and without."""
    folder = tmp_path_factory.mktemp("attention")
    data = examples.read(tiny_examples.write(folder / "examples"))
    student = adapter.student(str(tiny_models.internvl(folder / "model")), HOW)
    with torch.no_grad():
        for weight in student.trained:
            weight += torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)) * 0.1
        layers = student.core.language_model.layers
        for part in layers[0].self_attn.o_proj.parameters():
            part.zero_()
    read = features.cached(folder / "features", student, data.images)
    return Objective(student, data, read, HOW)


@torch.no_grad()
def test_looks_are_the_log_odds_of_real_attention(objective: Objective) -> None:
    student = objective.student
    head, after = student.head, student.template.after
    told = [objective.encode(text, 40) for text in CAPTIONS]
    images = objective.images([0, 1])
    (found,) = looks(student, [0, 1], objective.images, told, [1])
    assert found.shape == (3, 2)
    student.base.set_attn_implementation("eager")
    begin = len(head.tokens())
    for c, tokens in enumerate(told):
        ids = torch.tensor([[*head.tokens(), *tokens, *after]])
        for b in range(2):
            embedded = student.embeddings(ids)
            place = (ids == student.image_token)[..., None]
            embedded = embedded.masked_scatter(place, images[b].to(embedded.dtype))
            out = student.core.language_model(
                inputs_embeds=embedded, output_attentions=True, use_cache=False
            )
            mass = out.attentions[1][0]  # (H, L, L)
            there = mass[:, begin:, len(head.before) : begin].sum(-1)
            odds = (there.log() - torch.log1p(-there)).mean(0)  # (T,)
            expected = (odds[: len(tokens)].mean() + odds[len(tokens) :].mean()) / 2
            assert float(found[c, b]) == pytest.approx(float(expected), abs=2e-4)


@torch.no_grad()
def test_what_frozen_layers_say_is_computed_once(objective: Objective) -> None:
    student, kept, asked = objective.student, Kept(), list[int]()

    def project(rows: Sequence[int]) -> torch.Tensor:
        asked.extend(rows)
        return objective.images(rows)

    told = [objective.encode(text, 40) for text in CAPTIONS]
    looks(student, [1], project, told[:1], [1], kept)
    for _ in range(2):
        (found,) = looks(student, [0, 1], project, told, [1], kept)
        (anew,) = looks(student, [0, 1], objective.images, told, [1])
        assert torch.allclose(found, anew, atol=0.01)  # half precision
    assert asked == [1, 0]


def test_a_depth_that_the_model_does_not_have_is_refused(objective: Objective) -> None:
    student, data, read = objective.student, objective.examples, objective.features
    deep = recipe({"weights": {"attend": 1}, "attend_depths": [1, 2]})
    with pytest.raises(ValueError, match="attend_depths: the language model has 2 layers"):
        Objective(student, data, read, deep)
