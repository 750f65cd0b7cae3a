"""Decoding ahead of the model, and the parts of udfs/spark.py that need no Spark."""

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from pictures import encoded, picture

from udfs.inputs.image_roots import ImageRoots
from udfs.models import mlm
from udfs.models.model_config import ModelConfig
from udfs.processes.activity import Record, unrecorded
from udfs.scoring import stream
from udfs.scoring.batching import Limits, PairScorer, Prepared
from udfs.scoring.dual_encoder_scorer import Pair
from udfs.scoring.mlm_scorer import Scorer
from udfs.scoring.results import Scored
from udfs.scoring.stream import Meter, score_stream
from udfs.spark import SCORES, columns_of, device_of


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    return mlm.load(ModelConfig(str(tiny_models.llava(tmp_path_factory.mktemp("llava")))))


IMAGE = encoded(picture())


def batches(sizes: list[int]) -> Iterator[tuple[list[Any], list[Any]]]:
    count = 0
    for size in sizes:
        captions = [f"caption number {count + i}" for i in range(size)]
        images: list[Any] = [IMAGE if (count + i) % 7 else b"<html>" for i in range(size)]
        count += size
        yield images, captions


@pytest.mark.parametrize("sizes", [[], [0], [1], [5, 0, 200, 3], [64, 64], [1] * 9])
def test_answers_come_in_order_one_for_each_pair(scorer: Scorer, sizes: list[int]) -> None:
    found = list(score_stream(scorer, batches(sizes), Meter(), chunk_rows=16))
    assert [len(answers) for answers in found] == sizes
    streamed = [answer for answers in found for answer in answers]
    pairs = [p for images, captions in batches(sizes) for p in zip(images, captions, strict=True)]
    for i in range(0, len(streamed), 23):
        image, caption = pairs[i]
        alone = scorer.score([image], [caption])[0]
        assert streamed[i].status == alone.status
        if alone.expectation is not None:
            assert streamed[i].expectation == pytest.approx(alone.expectation, abs=1e-5)


def test_input_is_read_ahead_but_not_without_bound(scorer: Scorer) -> None:
    reads = 0

    def endless() -> Iterator[tuple[list[Any], list[Any]]]:
        nonlocal reads
        while True:
            reads += 1
            yield [IMAGE] * 8, ["a"] * 8

    found = score_stream(scorer, endless(), Meter(), chunk_rows=8)
    next(found)
    assert 1 < reads <= stream.CHUNKS_AHEAD + 1
    found.close()  # type: ignore[attr-defined]  # LIMIT, or a killed task: threads end
    assert not [t for t in threading.enumerate() if t.name.startswith("decode")]


class _Pictures(PairScorer):
    """Rows of a megabyte each; counts how many are ready and not yet scored."""

    limits = Limits(1, 1)

    def __init__(self) -> None:
        self.ready = self.most = 0
        self._lock = threading.Lock()

    def prepare(self, image: Any, caption: Any) -> Prepared:
        with self._lock:
            self.ready += 1
            self.most = max(self.most, self.ready)
        return Prepared(
            Pair(torch.zeros(0), {"pixel_values": torch.zeros(1 << 18)}), Scored("ok", caption)
        )

    def score_prepared(
        self, prepared: Sequence[Prepared], record: Record = unrecorded
    ) -> list[Scored]:
        time.sleep(0.002 * len(prepared))  # slower than preparing
        with self._lock:
            self.ready -= len(prepared)
        return [pair.answer for pair in prepared]

    def explain(self) -> list[str]:
        return []


@pytest.mark.parametrize(("megabytes", "most"), [(0, 3), (1, 3), (8, 10), (1000, 50)])
def test_pictures_that_wait_are_bounded_in_bytes(megabytes: int, most: int) -> None:
    scorer = _Pictures()
    captions = [str(n) for n in range(50)]
    batches = [([b""] * 50, captions)]
    found = score_stream(scorer, batches, Meter(), memory=max(1, megabytes << 20))
    assert [answer.reason for answers in found for answer in answers] == captions
    assert scorer.most <= most  # the two threads may each be over by one


def test_files_that_wait_are_bounded_in_bytes() -> None:
    read = 0

    def endless() -> Iterator[tuple[list[Any], list[Any]]]:
        nonlocal read
        while True:
            read += 1
            yield [bytes(1 << 20)], ["a"]

    found = score_stream(_Pictures(), endless(), Meter(), memory=8 << 20)
    for _ in range(20):
        next(found)
    assert 20 < read < 20 + 12
    found.close()  # type: ignore[attr-defined]


def test_the_meter_counts_every_stage(scorer: Scorer) -> None:
    meter = Meter()
    list(score_stream(scorer, batches([20]), meter))
    seconds = meter.take()
    assert seconds["decode"] > 0
    assert seconds["model"] > 0
    assert sum(meter.take().values()) == 0


def test_images_by_path(scorer: Scorer, tmp_path: Path) -> None:
    file = tmp_path / "a picture.png"
    file.write_bytes(IMAGE)
    paths = [str(file), file.as_uri(), str(tmp_path / "gone.png"), None]
    read = ImageRoots.of([str(tmp_path)]).read
    answers = next(score_stream(scorer, [(paths, ["a"] * 4)], Meter(), read=read))
    assert [a.status for a in answers] == ["ok", "ok", "bad_image", "bad_image"]
    assert answers[2].reason == "cannot read .../gone.png: No such file or directory"


def test_devices_come_from_the_task() -> None:
    assert device_of([], None) == "cpu"
    assert device_of(["3"], None) == "cuda:3"
    assert device_of(["3"], "2,3") == "cuda:1"  # CUDA counts within what the process may see
    assert device_of(["0"], "5") == "cuda:0"


def test_columns_are_those_of_the_schema(scorer: Scorer) -> None:
    columns = columns_of(scorer.score([IMAGE, None], ["a", "b"]))
    assert list(columns) == SCORES.fieldNames()
    assert columns["itm"][1] is None
    assert columns["status"] == ["ok", "bad_image"]
