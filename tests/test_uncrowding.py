"""What images and captions have in common with everything, taken off ITM after training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_examples
import tiny_models
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from tiny_examples import recipe

from udfs.metrics import ITM
from udfs.training import adapter, asking, examples, features, low_rank, towers, uncrowding
from udfs.training.examples import Examples
from udfs.training.inputs import Inputs
from udfs.training.plans import Planner
from udfs.training.reads import Reads
from udfs.training.train import train

pytestmark = pytest.mark.usefixtures("one_thread")
IMITATE: dict[str, Any] = {"weights": {"imitate": 1}, "sampled_numbers": True}


@dataclass
class Told:
    """A dual encoder to which captions that tell a number suit every image."""

    texts: list[str]

    def crowd(self, images: list[int], texts: list[int]) -> NDArray[np.float32]:
        return np.array([float("number" in self.texts[t]) for t in texts], dtype=np.float32)

    def __call__(self, images: list[int], texts: list[int]) -> NDArray[np.float32]:
        draw = np.random.default_rng(0)
        found = draw.normal(size=len(texts)) - self.crowd(images, texts)
        return found.astype(np.float32)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    return examples.read(tiny_examples.write(tmp_path_factory.mktemp("examples")))


def inputs(base: Path, data: Examples, folder: Path, **how: Any) -> tuple[Inputs, Planner]:
    asked = recipe(IMITATE, **how)
    student = adapter.student(str(base), asked)
    for name, weight in student.model.named_parameters():
        if "lora_B" in name:  # which begin with nothing
            draw = torch.Generator().manual_seed(len(name))
            weight.data = torch.randn(weight.shape, generator=draw) * 0.02
    found = Inputs(student, data, features.cached(folder, student, data.images), asked)
    found.dual_encoder = Told(found.texts)  # type: ignore[assignment]
    return found, Planner(data, asked)


def asked(given: Inputs) -> NDArray[np.float64]:
    """Log odds (T,) of ITM of all texts behind the first image."""
    student, stage, reads = given.student, given.recipe.stages[0], Reads()
    student.model.eval()
    tree, last = student.with_image()
    for text in given.texts:
        reads.number(0, given.ask(tree, given.tell(tree, last, text, stage), ITM, stage))
    with torch.inference_mode():
        hidden = student.hidden([tree], given.images([0], stage, 0))
        odds, _ = asking.odds_of(given, hidden, reads, stage)
    return odds.double().numpy()


@pytest.mark.parametrize("how", [{}, {"lora": None}])
def test_what_suits_everything_gets_less_itm(
    internvl: Path, data: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: Any
) -> None:
    monkeypatch.setattr(uncrowding, "RIDGE", 1e-5)  # with so few words all can be told
    given, planner = inputs(internvl, data, tmp_path, **how)
    before = asked(given)
    line = uncrowding.uncrowd(given, planner, given.recipe.stages[0])
    assert line.startswith("uncrowd: ")
    after = asked(given)
    crowded = np.array(["number" in text for text in given.texts])
    fell = (before - after)[crowded].mean() - (before - after)[~crowded].mean()
    # One standard deviation of a match (as `Told` draws it) is worth one of the log odds.
    assert 0.5 * before.std() < fell < 2 * before.std()


def test_where_other_numbers_are_told_nothing_is_read() -> None:
    draw = torch.Generator().manual_seed(0)
    read, beside = (torch.randn(300, 20, generator=draw) for _ in range(2))
    beside[:, 10:] = 0  # some of the features are quiet there
    wanted = read[:, :-1].sum(dim=1)
    reader = uncrowding._reader(read, wanted, uncrowding._square(beside) * 1e4)
    assert float((beside @ reader).abs().max()) < 0.01
    assert float(torch.corrcoef(torch.stack([read @ reader, wanted]))[0, 1]) > 0.5
    plain = uncrowding._reader(read, wanted, torch.zeros(20, 20, dtype=torch.float64))
    assert float((beside @ plain).std()) > 1


def test_an_adapter_keeps_its_rank_and_holds_what_fits(internvl: Path) -> None:
    student = adapter.student(str(internvl), recipe(IMITATE))
    down = student.core.language_model.layers[-1].mlp.down_proj
    low, high, _ = low_rank.matrices(down)
    shape, draw = low.shape, torch.Generator().manual_seed(0)
    high.data[:, 0] = 0.1  # of the rank one is taken: there is room
    before = low_rank.added(down).detach()
    direction, reader = (torch.randn(n, generator=draw) for n in (len(high), shape[1]))
    uncrowding._add(down, direction, reader)
    found = low_rank.added(down)
    assert torch.allclose(found, before + torch.outer(direction, reader), atol=1e-4)
    whole = torch.randn(len(high), shape[1], generator=draw)
    low_rank.add(down, whole - low_rank.added(down))
    a, s, b = torch.linalg.svd(whole, full_matrices=False)
    rank = shape[0]
    assert torch.allclose(low_rank.added(down), a[:, :rank] * s[:rank] @ b[:rank], atol=1e-4)
    assert low.shape == shape


def test_a_training_that_was_killed_ends_with_the_same(
    internvl: Path, data: Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(towers, "TOWERS", 1)
    monkeypatch.setattr(towers, "AT_LEAST", 20)
    encoder = tiny_models.sentence_encoder(tmp_path / "encoder")
    ends, lines = {}, list[str]()
    for name, uncrowd, stops in (
        ("plain", False, ()),
        ("once", True, ()),
        ("killed", True, (1, 9)),
    ):
        how = recipe(IMITATE | {"steps": 2}, sentence_encoder=encoder, uncrowd=uncrowd)
        for stop in (*stops, None):
            student = adapter.student(str(internvl), how)
            read = features.cached(tmp_path / "features", student, data.images)
            work, options = tmp_path / name, {"progress": lines.append, "every_seconds": 0}
            train(student, data, read, how, work, stop_after=stop, **options)  # type: ignore[arg-type]
        down = student.core.language_model.layers[-1].mlp.down_proj
        ends[name] = (down.lora_B["default"].weight @ down.lora_A["default"].weight).detach()
    assert torch.equal(ends["killed"], ends["once"])
    assert not torch.allclose(ends["plain"], ends["once"], atol=1e-6)
    assert any(line.startswith("uncrowd: ") for line in lines)


def test_it_goes_by_a_stage_that_imitates() -> None:
    with pytest.raises(ValidationError, match="uncrowd goes by a stage with imitate"):
        recipe({"weights": {"score": 1}}, uncrowd=True)
