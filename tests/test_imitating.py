"""A dual encoder that judges images it has not been fitted to, and the loss that follows it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_examples
import tiny_models
import torch
from sklearn.metrics import roc_auc_score
from tiny_examples import recipe, two_sides

from udfs.metrics import ITM
from udfs.training import adapter, examples, features, losses, towers
from udfs.training import inputs as inputs_module
from udfs.training.cross_fitting import FOLDS, dual_encoder, fold
from udfs.training.examples import Examples, ExamplesError
from udfs.training.numbers import begun, begun_odds, expectation, log_odds, log_probabilities
from udfs.training.objective import Objective
from udfs.training.plans import Planner
from udfs.training.recipe import Recipe
from udfs.training.student import Student
from udfs.training.train import train

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def fewer_towers(monkeypatch: pytest.MonkeyPatch) -> None:
    """One speaks for three, in a third of the time."""
    monkeypatch.setattr(towers, "TOWERS", 1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    return examples.read(tiny_examples.write(tmp_path_factory.mktemp("examples")))


def learner(
    internvl: Path, data: Examples, folder: Path, **stage: Any
) -> tuple[Recipe, Student, Any]:
    """A recipe that imitates, a student, and the features of the images."""
    encoder = tiny_models.sentence_encoder(folder / "encoder")
    how = recipe({"weights": {"imitate": 1}} | stage, sentence_encoder=encoder)
    student = adapter.student(str(internvl), how)
    return how, student, features.cached(folder / "features", student, data.images)


def test_groups_stay_whole_in_folds_of_about_the_same_size() -> None:
    sizes = {"a": 50, "b": 30, "c": 20, "d": 20, "e": 20, "f": 10, "g": 10}
    groups = [group for group, size in sizes.items() for _ in range(size)]
    np.random.default_rng(0).shuffle(groups)
    folds = fold(groups)
    assert sorted(set(folds.tolist())) == list(range(FOLDS))
    for group in sizes:
        assert len({f for f, g in zip(folds, groups, strict=True) if g == group}) == 1
    assert np.bincount(folds).tolist() == [50, 30, 30, 30, 20]
    assert fold(["only"] * 12).tolist() == [0, 1, 2, 3, 4] * 2 + [0, 1]
    assert fold(["a", "b", "b"]).tolist() == [1, 0, 0]


def test_no_image_is_judged_by_what_its_own_group_taught() -> None:
    captions, images = two_sides(300, 0)
    groups = [f"book {i % 7}" for i in range(300)]
    right = [(i, i) for i in range(300)]
    found = dual_encoder(captions, images, right, groups)
    mine = [i for i in range(300) if found.folds[i] == found.folds[0]]
    judged = found(mine, mine)
    strangers = [mine[(at + 1) % len(mine)] for at in range(len(mine))]
    labels = np.r_[np.ones(len(mine)), np.zeros(len(mine))]
    assert roc_auc_score(labels, np.r_[judged, found(mine, strangers)]) > 0.9
    # The pairs of that fold changed: nothing is judged otherwise there, all is elsewhere.
    swapped = dict(zip(mine, strangers, strict=True))
    wrong = dual_encoder(captions, images, [(i, swapped.get(i, i)) for i in range(300)], groups)
    assert np.array_equal(wrong(mine, mine), judged)
    others = [i for i in range(300) if i not in swapped]
    assert not np.allclose(wrong(others, others), found(others, others), atol=1e-3)


@pytest.mark.parametrize(
    ("first_digit", "by"), [(False, "both"), (True, "both"), (True, "odds"), (True, "mean")]
)
def test_the_loss_is_what_separate_sequences_leave_of_the_correlation(
    internvl: Path, data: Examples, tmp_path: Path, first_digit: bool, by: str
) -> None:
    asked = {"imitated": 3, "beside": 4, "sampled_numbers": first_digit, "imitated_by": by}
    how, student, read = learner(internvl, data, tmp_path, **asked)
    objective = Objective(student, data, read, how)
    objective.inputs.read_sentences(tmp_path)
    stage, inputs = how.stages[0], objective.inputs
    plan = Planner(data, how).plan(stage, 1)
    assert not plan.ranked
    odds, means, wanted = list[torch.Tensor](), list[torch.Tensor](), list[np.float32]()
    with torch.no_grad():
        (found,) = objective(plan, stage).values()
        for image, captions in plan.imitated:
            for text in captions:
                tree, last = student.with_image()
                tip = inputs.tell(tree, last, text, stage)
                columns = tree.ask(tip, student.template.questions[ITM], student.template.tree)
                hidden = student.hidden([tree], inputs.images([image], stage, 1))[0, columns]
                head, numbers = student.lm_head.weight, student.template.tree
                if first_digit:
                    odds.append(begun_odds(hidden[:1], head, numbers)[0])
                    log_p, _, middles = begun(hidden[0], head, numbers)
                    means.append(log_p.exp() @ middles)
                else:
                    log_p = log_probabilities(hidden @ head.T, numbers)
                    odds.append(log_odds(log_p))
                    means.append(expectation(log_p))
                assert inputs.dual_encoder is not None
                wanted.extend(inputs.dual_encoder([image], [data.texts().index(text)]))
    used = {"odds": [odds], "mean": [means], "both": [odds, means]}[by]
    told = [[float(x) for x in each] for each in used]
    expected = 1 - np.mean([np.corrcoef(each, wanted)[0, 1] for each in told])
    assert len(odds) > 6
    assert float(found) == pytest.approx(expected, abs=1e-3)


def test_who_is_imitated_hears_all_layers(
    internvl: Path, data: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how, student, read = learner(internvl, data, tmp_path)
    given = []

    def note(told: Any, seen: Any, *rest: Any) -> None:
        given.append((told.shape, seen.shape))

    monkeypatch.setattr(inputs_module, "dual_encoder", note)
    Objective(student, data, read, how).inputs.read_sentences(tmp_path)
    words = tiny_models.standin_towers().text.config.hidden_size
    patches = student.core.vision_tower.config.hidden_size
    assert given == [((len(data.texts()), 3 * words), (len(data.images), 5 * patches))]


def test_only_order_and_distances_count() -> None:
    found, wanted = torch.randn(2, 40, generator=torch.Generator().manual_seed(0))
    once = losses.correlation_loss(found, wanted)
    assert torch.allclose(losses.correlation_loss(3 * found - 7, 0.1 * wanted + 2), once, atol=1e-5)
    assert float(losses.correlation_loss(found, found)) == pytest.approx(0, abs=1e-5)
    assert float(losses.correlation_loss(found, -found)) == pytest.approx(2, abs=1e-5)
    alone = found[:1].requires_grad_()
    one = losses.correlation_loss(alone, wanted[:1])
    one.backward()
    assert float(one.detach()) == 1
    assert alone.grad is not None
    assert torch.isfinite(alone.grad).all()


def test_own_captions_stand_beside_others(data: Examples) -> None:
    how = recipe({"weights": {"imitate": 1}, "imitated": 6, "beside": 3})
    seen = Planner(data, how).plan(how.stages[0], 0).imitated
    assert len(seen) == 6
    for image, (own, *others) in seen:
        assert own in data.captions[image]
        assert others
        assert not set(others) & set(data.captions[image])
    bare = replace(data, captions=[[] for _ in data.captions])
    with pytest.raises(ExamplesError, match="imitate needs captions that match an image"):
        Planner(bare, how)


def test_what_is_imitated_is_learned(internvl: Path, data: Examples, tmp_path: Path) -> None:
    asked = {"steps": 40, "imitated": 8, "sampled_numbers": True}
    how, student, read = learner(internvl, data, tmp_path, **asked)
    history = train(student, data, read, how, tmp_path / "checkpoints").steps
    found = [step["imitate"] for step in history]
    assert np.mean(found[-5:]) < 0.6 * np.mean(found[:5])
