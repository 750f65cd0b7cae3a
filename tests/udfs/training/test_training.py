"""Fine-tuning on tiny models: packed training equals plain sequences, and equals scoring."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_examples
import tiny_models
import torch
from tiny_examples import recipe

from udfs.core import peft_adapters
from udfs.core.metrics import METRICS
from udfs.inputs import images
from udfs.models import identity, mlm
from udfs.models.model_config import ModelConfig, ModelError
from udfs.scoring.mlm_scorer import Scorer
from udfs.training import adapter, examples, features, held_out, length_batches
from udfs.training.examples import Examples
from udfs.training.objective import Objective
from udfs.training.read_positions import Reads
from udfs.training.recipe import Recipe
from udfs.training.run import Settings, fit
from udfs.training.step_plans import Plan
from udfs.training.student import Student
from udfs.training.teacher_losses import read_out as read_out_of

SCORE = {"weights": {"score": 1}}
SCORE_AND_REASON = {"weights": {"score": 1, "reason": 0.3}, "caption_tokens": 40}


@pytest.fixture(scope="module", params=["llava", "internvl"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.FAMILIES[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    return examples.read(tiny_examples.write(tmp_path_factory.mktemp("examples")))


def objective(
    folder: Path, data: Examples, how: Recipe, cache: Path, scatter: bool = True
) -> Objective:
    """A student's objective; its weights moved at random, so that the adapter does something."""
    student = adapter.student(str(folder), how)
    if scatter:
        torch.manual_seed(1)
        with torch.no_grad():
            for weight in student.trained:
                weight += torch.randn_like(weight) * 0.1
                weight.copy_(weight.bfloat16().float())  # what an adapter's file can hold
    return Objective(student, data, features.cached(cache, student, data.images), how)


@torch.no_grad()
def plain_logits(student: Student, picture: bytes, tokens: list[int]) -> torch.Tensor:
    """(L, V) of one sequence under ordinary causal attention, with the picture's pixels."""
    out = student.processor(
        text=[student.template.head],
        images=[[images.decode(picture, student.recipe.prompt.image_fit)]],
        return_tensors="pt",
        add_special_tokens=student.template.begins,
    )
    head = out["input_ids"][0].tolist()
    ids = torch.tensor([head + tokens])
    logits = student.base(
        input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=out["pixel_values"]
    ).logits[0]
    log_p: torch.Tensor = logits[len(head) - 1 :].log_softmax(-1)
    return log_p


def plain_numbers(
    student: Student, picture: bytes, asked: list[int], encode: Callable[[str], list[int]]
) -> np.ndarray:
    """log P (101,) of each number after the tokens `asked`: the definition, number by number."""
    digits = [encode(str(d))[0] for d in range(10)]

    def after(text: str) -> torch.Tensor:
        return plain_logits(student, picture, asked + [digits[int(c)] for c in text])[-1].exp()

    first = after("")[digits]
    first = first / first.sum()
    probability = np.zeros(101)
    probability[0] = float(first[0])
    for d in range(1, 10):
        second = after(str(d))[digits]
        probability[d] = float(first[d] * (1 - second.sum()))
        for e in range(10):
            probability[10 * d + e] = float(first[d] * second[e])
    hundred = float(after("10")[digits[0]])
    probability[100] = probability[10] * hundred
    probability[10] *= 1 - hundred
    return np.log(probability)


@pytest.mark.parametrize("style", ["rationalization", "chain_of_thought"])
def test_a_packed_step_costs_what_separate_sequences_do(
    folder: Path, data: Examples, tmp_path: Path, style: str
) -> None:
    how = recipe(SCORE_AND_REASON, style=style, soft_target=3.0, distance=0.5)
    packed = objective(folder, data, how, tmp_path)
    student = packed.inputs.student
    tokenizer = student.processor.tokenizer

    def encode(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    # Two captions of one image, of others one; with reasons and without; few metrics and all.
    plan = Plan(scored=[(2, [0, 1, 2, 3]), (3, [1, 3]), (4, [0, 1, 2, 3]), (7, [2])])
    assert data.scored[2].image == data.scored[3].image
    found = packed(plan, how.stages[0])

    score_losses: list[float] = []
    reason_losses: list[float] = []
    for index, metrics in plan.scored:
        pair = data.scored[index]
        picture = data.images[pair.image]
        start = [*encode(pair.caption), *student.template.after]
        for m in metrics:
            asked = [*start, *student.template.questions[m]]
            reason = pair.reasons[m]
            if style == "chain_of_thought" and reason:
                told = encode(f"{reason}\n")
                log_p = plain_logits(student, picture, asked + told)
                reason_losses += [-float(log_p[len(asked) + i, t]) for i, t in enumerate(told)]
                asked = asked + told
            elif reason:
                told = [*encode(f"\n{reason}"), tokenizer.eos_token_id]
                number = encode(str(round(pair.scores[m])))
                log_p = plain_logits(student, picture, asked + number + told)
                at = len(asked) + len(number)
                reason_losses += [-float(log_p[at + i, t]) for i, t in enumerate(told)]
            log_numbers = plain_numbers(student, picture, asked, encode)
            bell = np.exp(-0.5 * ((np.arange(101) - pair.scores[m]) / 3.0) ** 2)
            mean = (np.exp(log_numbers) * np.arange(101)).sum()
            score_losses.append(
                -(bell / bell.sum() * log_numbers).sum() + 0.5 * ((mean - pair.scores[m]) / 25) ** 2
            )
    assert len(reason_losses) > 50
    assert float(found["score"].detach()) == pytest.approx(np.mean(score_losses), abs=1e-4)
    assert float(found["reason"].detach()) == pytest.approx(np.mean(reason_losses), abs=1e-4)


def read_out(trained: Objective, pairs: list[tuple[int, str]]) -> np.ndarray:
    """Distributions (P, 4, 101) as training reads them, all captions of an image in one tree."""
    student, reads = trained.inputs.student, Reads()
    trees = {image: student.with_image() for image, _ in pairs}
    rows = list(trees)
    for image, caption in pairs:
        tree, last = trees[image]
        tip = tree.extend(last, trained.inputs.encode(caption, 64))
        tip = tree.extend(tip, student.template.after)
        for question in student.template.questions:
            reads.number(rows.index(image), tree.ask(tip, question, student.template.tree))
    with torch.no_grad():
        images = trained.inputs.images(rows, trained.inputs.recipe.stages[0], 0)
        hidden = student.hidden([tree for tree, _ in trees.values()], images)
        log_p = read_out_of(trained.inputs, hidden, reads)
    return log_p.exp().reshape(len(pairs), len(METRICS), -1).double().numpy()


def scored_by(scorer: Scorer, data: Examples, pairs: list[tuple[int, str]]) -> np.ndarray:
    answers = scorer.score([data.images[i] for i, _ in pairs], [text for _, text in pairs])
    return np.array([answer.distributions for answer in answers])


PAIRS = [(0, "red it is"), (0, "a long caption about a blue wall"), (3, "x"), (5, "<image> äöü")]


def test_training_scores_as_scoring_does(folder: Path, data: Examples, tmp_path: Path) -> None:
    trained = objective(folder, data, recipe(SCORE), tmp_path)
    student = trained.inputs.student
    scorer = Scorer(student.base.eval(), student.processor, student.recipe.prompt)
    found = read_out(trained, PAIRS)
    assert found.sum(-1) == pytest.approx(np.ones((len(PAIRS), 4)), abs=1e-5)
    assert np.abs(found - scored_by(scorer, data, PAIRS)).max() < 1e-5
    assert np.ptp(found, axis=0).max() > 1e-3  # pairs differ, so agreeing says much


def test_trees_of_like_length_run_together(folder: Path, data: Examples, tmp_path: Path) -> None:
    trained = objective(folder, data, recipe(SCORE), tmp_path)
    student, trees = trained.inputs.student, []
    for words in (1, 15, 2, 9, 14, 3, 1, 13, 4, 12):
        tree, last = student.with_image()
        tree.extend(last, trained.inputs.encode("a red wall " * words, 64))
        trees.append(tree)
    rows = [row % len(data.images) for row in range(len(trees))]
    pieces = length_batches.alike([len(tree) for tree in trees])
    assert [sorted(piece) for piece in pieces] == [[1, 3, 4, 7, 9], [0, 2, 5, 6, 8]]
    with torch.no_grad():
        images = trained.inputs.images(rows, trained.inputs.recipe.stages[0], 0)
        found = student.hidden(trees, images)
        for row, tree in enumerate(trees):
            alone = student.hidden([tree], images[row : row + 1])[0, : len(tree)]
            assert torch.allclose(found[row, : len(tree)], alone, atol=1e-4)


@pytest.mark.parametrize("lora", [{"rank": 4}, None])
def test_what_is_saved_is_what_is_loaded(
    folder: Path, data: Examples, tmp_path: Path, lora: dict[str, int] | None
) -> None:
    trained = objective(folder, data, recipe(SCORE, lora=lora), tmp_path / "features")
    expected = read_out(trained, PAIRS)
    adapter.save(trained.inputs.student, tmp_path / "saved", str(folder))
    loaded = mlm.load(ModelConfig(str(tmp_path / "saved")))
    assert loaded.prompt == tiny_examples.PROMPT
    assert np.abs(scored_by(loaded, data, PAIRS) - expected).max() < 1e-5
    base = mlm.load(ModelConfig(str(folder)))
    base = Scorer(base.model, base.processor, tiny_examples.PROMPT)
    assert np.abs(scored_by(base, data, PAIRS) - expected).max() > 1e-2
    if lora is None:
        assert not peft_adapters.is_adapter(tmp_path / "saved")
        return
    size = (tmp_path / "saved" / "adapter_model.safetensors").stat().st_size
    assert size < 2.2 * sum(weight.numel() for weight in trained.inputs.student.trained) + 20_000
    adapter.merge_folder(str(folder), tmp_path / "saved", tmp_path / "merged", None)
    merged = mlm.load(ModelConfig(str(tmp_path / "merged")))
    assert merged.prompt == tiny_examples.PROMPT
    assert np.abs(scored_by(merged, data, PAIRS) - expected).max() < 1e-5


def test_an_adapter_is_another_scorer_by_itself_and_by_its_base(
    internvl: Path, tmp_path: Path
) -> None:
    def scorer_id() -> str:
        identity.identity.cache_clear()
        return identity.scorer_id(ModelConfig(str(tmp_path / "adapter")))

    base = tmp_path / "base"
    tiny_models.internvl(base)
    adapter.save(adapter.student(str(base), recipe(SCORE)), tmp_path / "adapter", str(base))
    first = scorer_id()
    assert first == scorer_id()
    (base / "generation_config.json").write_text("{}")
    second = scorer_id()
    (tmp_path / "adapter" / "new").write_text("{}")
    assert len({first, second, scorer_id()}) == 3
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(config.read_text().replace(str(base), str(tmp_path / "gone")))
    with pytest.raises(ModelError, match="gone"):
        scorer_id()
    with pytest.raises(ModelError, match="gone"):
        mlm.load(ModelConfig(str(tmp_path / "adapter")))


def test_a_run_makes_a_folder_that_scores(internvl: Path, tmp_path: Path) -> None:
    folder = tiny_examples.write(tmp_path / "examples", 12)
    tiny_examples.write(folder / "held_out", 6)
    (folder / "data.json").write_text(json.dumps({"held_out": ["book 9"]}))
    how = recipe({"weights": {"rank": 1}}, {"weights": {"score": 1, "reason": 0.1}, "steps": 5})
    settings = Settings(
        examples=str(folder),
        work=str(tmp_path / "work"),
        output=str(tmp_path / "model"),
        base=str(internvl),
        base_name=str(internvl),
        base_content="tiny",
        recipe=how.model_dump_json(),
    )
    result = fit(settings)
    assert result["losses"]["stage 1"].keys() == {"score", "reason"}
    made = {path.name for path in (tmp_path / "model").iterdir()}
    assert {"README.md", "losses.png", "history.json", "evaluation.json", "recipe.json"} <= made
    assert Recipe.model_validate_json((tmp_path / "model" / "recipe.json").read_text()) == how
    rows = json.loads((tmp_path / "model" / "evaluation.json").read_text())
    assert [(row["metric"], row["reading"]) for row in rows] == [
        (metric, reading) for reading in ("expectation", "mode") for metric in METRICS
    ]
    assert all(row["n"] == 12 for row in rows)
    held = examples.read(folder / "held_out")
    scorer = mlm.load(ModelConfig(str(tmp_path / "model")))
    pairs = [(pair.image, pair.caption) for pair in held.scored]
    means = scored_by(scorer, held, pairs)[:, 0] @ np.arange(101)
    errors = np.abs(means - [pair.scores[0] for pair in held.scored])
    assert rows[0]["error"]["value"] == pytest.approx(errors.mean(), abs=1e-6)
    matching = json.loads((tmp_path / "model" / "matching.json").read_text())
    assert matching == result["matching"] == held_out.matching(scorer, held, lambda _: None)
    card = (tmp_path / "model" / "README.md").read_text()
    assert f"AUC {matching['share']['value']:.3f}" in card
    assert card.startswith("---\nlibrary_name: peft\n")
    for told in ("On book 9, never trained on", "12 images", "## Known limits", "losses.png"):
        assert told in card
    assert str(tmp_path) not in card
    assert (tmp_path / "model" / "losses.png").read_bytes().startswith(b"\x89PNG")
    merged = replace(settings, output=str(tmp_path / "whole"), merge=True)
    fit(merged)  # trained already: only written
    assert not peft_adapters.is_adapter(tmp_path / "whole")
    again = mlm.load(ModelConfig(str(tmp_path / "whole")))
    gap = scored_by(again, held, pairs) - scored_by(scorer, held, pairs)
    assert np.abs(gap).max() < 1e-5
