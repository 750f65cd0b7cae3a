"""What makes fine-tuning affordable says the same as what it stands for: numbers learned step by
step, and ranking by the first digit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_examples
import tiny_models
import torch
from tiny_examples import recipe

from udfs.scoring import number_tree
from udfs.training import adapter, examples, features, losses, teacher_losses
from udfs.training.examples import Examples
from udfs.training.number_probabilities import (
    begun_odds,
    log_odds,
    log_probabilities,
    path,
    path_log_probabilities,
    stand_ins,
)
from udfs.training.objective import Objective
from udfs.training.step_plans import Plan
from udfs.training.teacher_losses import drawn

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    return examples.read(tiny_examples.write(tmp_path_factory.mktemp("examples")))


@pytest.mark.parametrize("merges", [False, True])
def test_the_steps_to_a_number_add_up_to_it(merges: bool) -> None:
    tokenizer = tiny_models.tokenizer(merges=merges)
    _, tree = number_tree.build(
        lambda text: list(tokenizer(text, add_special_tokens=False)["input_ids"]), "Score: "
    )
    torch.manual_seed(0)
    hidden = torch.randn(len(tree.nodes), 8)  # at each node
    head = torch.randn(len(tokenizer), 8)
    whole = log_probabilities(hidden @ head.T, tree)
    for number in range(101):
        steps = path(number, tree)
        nodes, tokens = zip(*steps, strict=True)
        found = path_log_probabilities(hidden[list(nodes)], nodes, tokens, head, tree).sum()
        assert float(found) == pytest.approx(float(whole[number]), abs=1e-4), number


def test_the_first_digit_tells_nearly_all_odds() -> None:
    tokenizer = tiny_models.tokenizer()
    _, tree = number_tree.build(
        lambda text: list(tokenizer(text, add_special_tokens=False)["input_ids"]), "Score: "
    )
    torch.manual_seed(0)
    hidden, head = torch.randn(50, len(tree.nodes), 8) / 2, torch.randn(len(tokenizer), 8)
    digits = {token for _, token in (steps[0] for steps in tree.steps)}
    # As after training: behind a digit from 1 to 9 there is another one, behind 10 there is none.
    hidden[:, 1:] = 0
    head[:, 0] = 0
    head[sorted(digits), 0] = 30
    for i, node in enumerate(tree.nodes):
        hidden[:, i, 0] = 1 if node.depth == 1 else 0
    exact = log_odds(log_probabilities(hidden @ head.T, tree))
    assert torch.allclose(begun_odds(hidden[:, 0], head, tree), exact, atol=1e-2)


def test_a_number_that_begins_like_others_is_learned_as_its_neighbour() -> None:
    tokenizer = tiny_models.tokenizer()
    _, tree = number_tree.build(
        lambda text: list(tokenizer(text, add_special_tokens=False)["input_ids"]), "Score: "
    )
    stand_in = stand_ins(tree)
    assert stand_in[:11] == (0, 0, 0, 0, 0, 0, 10, 10, 10, 10, 10)
    assert stand_in[10:] == (*range(10, 100), 99)
    head = torch.eye(len(tokenizer))
    digits = sorted({steps[0][1] for steps in tree.steps})
    hidden = torch.zeros(len(digits), len(tokenizer))
    for row, digit in enumerate(digits):  # sure of each digit
        hidden[row, digit] = 20
    best = {}
    for score in (0, 4, 44, 100):
        found = [
            float(losses.begun_loss(row[None], head, tree, torch.tensor([float(score)]), 1.0, 0.0))
            for row in hidden
        ]
        best[score] = digits[int(np.argmin(found))]
    own = {number: tree.steps[number][0][1] for number in (0, 44, 99)}
    assert best == {0: own[0], 4: own[0], 44: own[44], 100: own[99]}


def test_a_score_learned_by_steps_costs_what_its_number_does(
    internvl: Path, data: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher_losses, "REST", 1.0)
    how = recipe(
        {"weights": {"score": 1}},
        {"weights": {"score": 1}, "sampled_numbers": True},
        soft_target=0,  # then the number drawn is the teacher's own
    )
    student = adapter.student(str(internvl), how)
    objective = Objective(student, data, features.cached(tmp_path, student, data.images), how)
    plan = Plan(scored=[(2, [0, 1, 2, 3]), (3, [1, 3]), (4, [0, 1, 2, 3]), (7, [2])])
    with torch.no_grad():
        whole, steps = (float(objective(plan, stage)["score"]) for stage in how.stages)
    assert steps == pytest.approx(whole, abs=1e-4)


def test_numbers_are_drawn_from_the_soft_target(
    internvl: Path, data: Examples, tmp_path: Path
) -> None:
    how = recipe({"weights": {"score": 1}, "sampled_numbers": True}, soft_target=5.0)
    student = adapter.student(str(internvl), how)
    objective = Objective(student, data, features.cached(tmp_path, student, data.images), how)
    numbers = [drawn(objective.inputs, 60.0, ("stage", turn)) for turn in range(2000)]
    assert np.mean(numbers) == pytest.approx(60, abs=0.5)
    assert np.std(numbers) == pytest.approx(5, abs=0.4)
    assert numbers[:50] == [drawn(objective.inputs, 60.0, ("stage", turn)) for turn in range(50)]
