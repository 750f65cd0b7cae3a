"""What makes fine-tuning affordable says the same as what it stands for: numbers learned step by
step, ranking by the first digit, and a sentence encoder's likeness of captions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_examples
import tiny_models
import torch
from tiny_examples import recipe
from transformers import AutoModel, AutoTokenizer

from udfs import number_tree
from udfs.training import adapter, asking, examples, features, losses
from udfs.training.asking import drawn
from udfs.training.examples import Examples
from udfs.training.numbers import (
    begun_odds,
    log_odds,
    log_probabilities,
    path,
    path_log_probabilities,
    stand_ins,
)
from udfs.training.objective import Objective
from udfs.training.plans import Plan, Planner
from udfs.training.sentences import Sentences
from udfs.training.train import train

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
    monkeypatch.setattr(asking, "REST", 1.0)
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


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_models.sentence_encoder(tmp_path_factory.mktemp("encoder"))


def test_sentences_depend_on_their_text_alone(encoder: str, tmp_path: Path) -> None:
    texts = ["red paint", "a long caption about a blue wall and what is on it", "x", "green paint"]
    found = Sentences(tmp_path, encoder, texts)(texts)
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    again = Sentences(tmp_path, encoder, texts)  # now from its file
    assert np.array_equal(found, again(texts))
    turned = Sentences(tmp_path / "other", encoder, texts[::-1])(texts[::-1])[::-1]
    assert np.abs(found - turned).max() < 1e-5
    new, known = again(["a text that it has not read before", texts[1]])
    assert np.array_equal(known, found[1])
    assert np.linalg.norm(new) == pytest.approx(1, abs=1e-5)
    assert np.abs(again(["a text that it has not read before"])[0] - new).max() < 1e-5


def test_lower_layers_of_a_sentence_encoder_tell_their_mean_token(
    encoder: str, tmp_path: Path
) -> None:
    texts = ["a long caption about a blue wall and what is on it", "green paint"]
    sentences = Sentences(tmp_path, encoder, texts)
    first, halfway, last = sentences.depths(texts)
    assert np.array_equal(last, sentences(texts))
    model, tokenizer = AutoModel.from_pretrained(encoder), AutoTokenizer.from_pretrained(encoder)
    layers = model.config.num_hidden_layers
    for row, text in enumerate(texts):  # alone, without padding
        with torch.no_grad():
            out = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True)
        for found, depth in ((first, 0), (halfway, round(layers / 2))):
            wanted = out.hidden_states[depth][0].mean(dim=0)
            assert np.allclose(found[row], wanted.numpy(), atol=1e-5)


def test_likeness_is_perfect_for_the_same_and_worse_for_others() -> None:
    torch.manual_seed(0)
    wanted = torch.randn(12, 6)
    turned = wanted @ torch.linalg.qr(torch.randn(6, 6))[0] * 3  # the same angles
    assert float(losses.likeness_loss(turned, wanted, 0.1)) == pytest.approx(0, abs=1e-4)
    assert float(losses.likeness_loss(torch.randn(12, 6), wanted, 0.1)) > 0.5


def test_a_language_model_learns_what_a_sentence_encoder_finds_alike(
    internvl: Path, data: Examples, tmp_path: Path, encoder: str
) -> None:
    how = recipe(
        {"weights": {"distill": 1}, "steps": 40, "pairs": 16, "temperature": 0.5},
        sentence_encoder=encoder,
    )
    student = adapter.student(str(internvl), how)
    before = {name: weight.clone() for name, weight in student.model.named_parameters()}
    read = features.cached(tmp_path / "features", student, data.images)
    history = train(student, data, read, how, tmp_path / "work", progress=lambda _: None)
    found = [step["distill"] for step in history.steps]
    assert np.mean(found[-5:]) < 0.7 * np.mean(found[:5])
    moved = {
        name
        for name, weight in student.model.named_parameters()
        if not torch.equal(weight, before[name])
    }
    assert moved
    assert all("lora" in name and ".layers.0." in name for name in moved), "below the code alone"


def test_plans_of_texts_hold_each_once_an_epoch(data: Examples) -> None:
    how = recipe({"weights": {"distill": 1}, "pairs": 7})
    planner = Planner(data, how)
    texts = data.texts()
    assert len(texts) == len(set(texts)) > 10
    assert {pair.caption for pair in data.scored} <= set(texts)
    seen = [i for turn in range(len(texts)) for i in planner.plan(how.stages[0], turn).texts]
    assert all(seen.count(i) == 7 for i in range(len(texts)))
