"""Scoring in a child process: as in this process, whatever some of the pairs do to it."""

import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import poison
import pyarrow as pa
import pytest
import tiny_models
from pictures import encoded, picture

from jobs.core.errors import first_line
from udfs.inputs import images
from udfs.inputs.image_roots import ImageRoots
from udfs.models import loaded_model, model_process
from udfs.models.identity import scorer_id
from udfs.models.model_config import ModelConfig, ModelError
from udfs.models.model_process import Place
from udfs.processes import watched_process
from udfs.processes.row_supervisor import ProcessError
from udfs.scoring.mlm_scorer import Scorer
from udfs.scoring.results import Scored
from udfs.scoring.stream import Meter
from udfs.spark import explain_model, score_batches

pytestmark = pytest.mark.usefixtures("one_thread")

IMAGE = encoded(picture())
PLACE = Place(threads=1)
Pairs = list[tuple[Any, Any]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_models.llava(tmp_path_factory.mktemp("llava")))


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """starts() -> how many processes were started; rows of `poison` act."""
    for owner, name in ((images, "decode"), (Scorer, "_encode"), (Scorer, "distributions")):
        monkeypatch.setattr(owner, name, getattr(owner, name))  # to be restored
    poison.install()
    monkeypatch.setattr(watched_process, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(model_process, "_idle", [])
    yield lambda: sum(supervisor.starts for supervisor in model_process._idle)
    for supervisor in model_process._idle:
        if supervisor._process is not None:
            supervisor._process.end()


def good_pairs(count: int) -> Pairs:
    return [(IMAGE, f"caption number {n} " * (1 + n % 3)) for n in range(count)]


def score(config: ModelConfig, pairs: Pairs, meter: Meter | None = None) -> list[Scored]:
    columns: Any = tuple(zip(*pairs, strict=True))
    (found,) = model_process.score(config, PLACE, [columns], meter or Meter())
    return found


def figures(answer: Scored) -> Any:
    return answer.status, answer.expectation, answer.mode, answer.entropy


def limited(folder: str) -> ModelConfig:
    return ModelConfig(folder, batch_timeout=3, batch_memory=256 << 20)


def test_answers_are_those_of_this_process(folder: str, starts: Any) -> None:
    pairs = [*good_pairs(150), (b"<html>", "a"), (None, "b"), (IMAGE, None)]
    meter = Meter()
    found = score(ModelConfig(folder), pairs, meter)
    here = loaded_model.scorer(ModelConfig(folder)).score(*zip(*pairs, strict=True))
    assert [figures(answer) for answer in found] == [figures(answer) for answer in here]
    assert [answer.reason for answer in found] == [answer.reason for answer in here]
    seconds = meter.take()
    assert min(seconds["load"], seconds["decode"], seconds["model"]) > 0
    # Another limit is no other model.
    again = score(limited(folder), pairs[:2], meter)
    assert [figures(answer) for answer in again] == [figures(answer) for answer in here[:2]]
    assert meter.load < seconds["load"] / 2
    assert starts() == 1


DECODING, MODEL = "decoding the image", "the model"
BAD = {
    "exit": ("crashed", "ended the process: exit code 7, three times (twice alone)"),
    "segfault": ("crashed", "ended the process: SIGSEGV, three times (twice alone)"),
    "spin": ("timeout", "took more than 3 s"),
    "allocate": ("crashed", "took more than 256 MiB of memory, three times (twice alone)"),
}
CUDA = "ended the process: RuntimeError: CUDA error: device-side assert triggered, three times"


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("stage", [DECODING, MODEL])
def test_a_bad_pair_costs_no_other_its_score(
    folder: str, starts: Any, kind: str, stage: str
) -> None:
    good = good_pairs(20)
    sign = f"{poison.SIGN}{kind}"
    bad: tuple[Any, Any] = (sign.encode(), "a") if stage == DECODING else (IMAGE, sign)
    found = score(limited(folder), [*good[:9], bad, *good[9:]])
    status, reason = BAD[kind]
    assert found[9] == Scored(status, f"{stage} {reason}")
    assert starts() <= 4
    here = loaded_model.scorer(ModelConfig(folder)).score(*zip(*good, strict=True))
    assert [figures(a) for a in (*found[:9], *found[10:])] == [figures(a) for a in here]


def test_several_bad_pairs_of_one_batch(folder: str, starts: Any) -> None:
    pairs = good_pairs(14)
    pairs[3:3] = [
        (IMAGE, f"{poison.SIGN}exit"),
        (f"{poison.SIGN}segfault".encode(), "a"),
        (IMAGE, f"{poison.SIGN}cuda"),
        (IMAGE, f"{poison.SIGN}spin"),
    ]
    config = ModelConfig(folder, batch_timeout=3)
    found = score(config, pairs)
    assert [a.status for a in found[3:7]] == ["crashed", "crashed", "crashed", "timeout"]
    assert found[5].reason == f"{MODEL} {CUDA} (twice alone)"
    assert {a.status for a in (*found[:3], *found[7:])} == {"ok"}
    assert starts() <= 1 + 3 * 4


def test_a_batch_that_does_not_fit_is_halved_in_the_child(folder: str, starts: Any) -> None:
    pairs = good_pairs(20)
    pairs[3] = IMAGE, f"{poison.SIGN}memory"  # raises unless it is alone
    assert {answer.status for answer in score(ModelConfig(folder), pairs)} == {"ok"}
    assert starts() == 1


def test_batches_that_take_too_much_memory_become_smaller(folder: str, starts: Any) -> None:
    pairs = [(IMAGE, f"{poison.SIGN}crowd")] * 60  # allocates unless there are less than nine rows
    found = score(limited(folder), pairs)
    assert {answer.status for answer in found} == {"ok"}
    assert starts() == 2


def test_a_model_that_cannot_be_loaded_is_named(
    folder: str, starts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match="has no config.json") as raised:
        score(ModelConfig(str(tmp_path)), good_pairs(1))
    text = "".join(traceback.format_exception(raised.value))
    assert "in serve" in text  # of the child's code
    line = f"udfs.models.model_config.ModelError: {raised.value}"
    assert first_line(RuntimeError(f"PythonException:\n{text}")) == line
    assert starts() == 1
    monkeypatch.setattr(loaded_model, "scorer", lambda *_: poison.act("exit"))
    (supervisor,) = model_process._idle
    assert supervisor._process is not None
    supervisor._process.end()
    line = f"^cannot load model '{folder}': it ended the process: exit code 7, 3 times in a row$"
    with pytest.raises(ModelError, match=line):
        score(ModelConfig(folder), good_pairs(1))
    assert starts() == 1 + 3


def test_a_device_that_is_lost_for_all_pairs_condemns_none(
    folder: str, starts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [(IMAGE, f"{poison.SIGN}cuda")] * 40
    monkeypatch.setattr("udfs.processes.row_supervisor.MOST_DEATHS", 5)
    with pytest.raises(ProcessError, match="CUDA error.*, 5 times in a row"):
        score(ModelConfig(folder, batch_rows=8), pairs)
    assert starts() == 5


def test_streams_may_overlap(folder: str, starts: Any) -> None:
    config = ModelConfig(folder)
    batches = [([IMAGE] * 2, ["a", "b"])] * 2
    one = model_process.score(config, PLACE, batches, Meter())
    next(one)
    other = model_process.score(config, PLACE, batches, Meter())
    assert [len(answers) for answers in other] == [2, 2]
    assert [len(answers) for answers in one] == [2]
    assert starts() == 2


def test_paths_are_read_in_the_child(folder: str, starts: Any, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(IMAGE)
    paths = [str(tmp_path / "a.png"), str(tmp_path / "none.png"), None]
    pairs = [(paths, ["a"] * 3)]
    roots = ImageRoots.of([str(tmp_path)])
    (found,) = model_process.score(ModelConfig(folder), PLACE, pairs, Meter(), roots)
    assert [answer.status for answer in found] == ["ok", "bad_image", "bad_image"]


def test_what_spark_calls(folder: str, starts: Any) -> None:
    explain, _ = explain_model(ModelConfig(folder), "cpu")
    (lines,) = explain(iter([pa.RecordBatch.from_pydict({"id": [0]})]))
    assert lines.to_pydict()["line"][0].startswith("LlavaForConditionalGeneration in float32 on")
    score_function, schema = score_batches(ModelConfig(folder), ["uid"], "image", "cpu")
    batch = pa.RecordBatch.from_pydict(
        {"uid": ["1", "2"], "image": [IMAGE, b"x"], "caption": [b"a", b"b"]}
    )
    (found,) = score_function(iter([batch]))
    columns = found.to_pydict()
    assert list(columns) == schema.fieldNames()
    assert columns["status"] == ["ok", "bad_image"]
    assert columns["seconds_model"][0] > 0
    assert starts() == 1


def test_limits_change_no_score(folder: str) -> None:
    config = ModelConfig(folder, batch_timeout=1, batch_memory=1)
    assert scorer_id(config) == scorer_id(ModelConfig(folder))
