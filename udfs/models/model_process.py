"""Scores in a child of this process, which may die or hang without ending Spark's job.

The child (`serve`) loads the model and is kept: a worker that is reused for many tasks loads it
once. This process does not import torch, so that what it forks can use it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from udfs.core.arrow_values import as_bytes
from udfs.inputs.image_roots import ImageRoots
from udfs.models import loaded_model
from udfs.models.model_config import ModelConfig, ModelError
from udfs.processes.memory_size import machine_memory
from udfs.processes.row_supervisor import Channel, ProcessError, ProcessLostError, RowSupervisor
from udfs.processes.watched_process import Limits
from udfs.scoring.batching import WORK, is_fatal, one_line
from udfs.scoring.results import Scored
from udfs.scoring.stream import Meter, Pairs, score_stream

LEAST_MEMORY = 4 << 30


@dataclass(frozen=True)
class Place:
    """Where a task runs its model: "cpu", "cuda:i", or "cuda" for the GPU of this machine that
    falls to its partition; and with how many CPU threads."""

    device: str = "cpu"
    threads: int | None = None
    partition: int = 0

    def resolved(self) -> str:
        """The device as torch names it."""
        if self.device != "cuda":
            return self.device
        import torch

        return f"cuda:{self.partition % max(1, torch.cuda.device_count())}"


@dataclass(frozen=True)
class _Request:
    """What the child is asked to do: score pairs, or say how the model runs them."""

    config: ModelConfig
    place: Place
    roots: ImageRoots | None = None
    explain: bool = False
    rows: int | None = None  # so many at most in a micro-batch


def score(
    config: ModelConfig,
    place: Place,
    batches: Iterable[Pairs],
    meter: Meter,
    roots: ImageRoots | None = None,
) -> Iterator[list[Scored]]:
    """Yield the answers for each batch, as `udfs.scoring.stream.score_stream` does in this process.

    With `roots` the images are paths below them. A pair that ends the child, or keeps it longer
    than `config.batch_timeout`, gets the status `crashed` or `timeout`; its neighbours get their
    scores. Raises ModelError, and ProcessError if the child cannot be kept alive.
    """
    rows = ([_row(*pair) for pair in zip(*pairs, strict=True)] for pairs in batches)
    request = _Request(config, place, roots)
    with _supervisor(config) as supervisor:
        yield from supervisor.stream(
            request,
            rows,
            _limits(config),
            verdict=Scored,
            on_report=meter.add,
            smaller=lambda request, rows: replace(request, rows=rows),
        )


def explain(config: ModelConfig, place: Place) -> list[str]:
    """What the model says of itself (`PairScorer.explain`). Raises as `score` does."""
    request = _Request(config, place, explain=True)
    with _supervisor(config) as supervisor:
        ((lines,),) = supervisor.stream(request, [[("",)]], _limits(config), Scored)
        return list(lines)


def serve(request: _Request, channel: Channel) -> None:
    """In the child: load the model and answer."""
    meter = Meter()
    started = time.perf_counter()
    config, place = request.config, request.place
    scorer = loaded_model.scorer(config, place.resolved(), place.threads)
    meter.load += time.perf_counter() - started
    channel.ready(meter.take())
    if request.explain:
        for _ in channel.pieces():
            channel.answer([scorer.explain()])
        return
    if request.rows is not None:
        scorer.limits.cap(request.rows)
    read = request.roots.read if request.roots else None
    pairs: Iterator[Any] = (zip(*piece, strict=True) for piece in channel.pieces())
    try:
        for answers in score_stream(
            scorer, pairs, meter, read=read, memory=config.image_memory, record=channel.record
        ):
            channel.answer(answers, meter.take())
    except RuntimeError as error:
        if is_fatal(error):  # another process has another device context
            raise ProcessLostError(one_line(error)) from error
        raise


_idle: list[RowSupervisor] = []
"""Supervisors that serve no stream: one, unless streams of this process overlap."""


@contextmanager
def _supervisor(config: ModelConfig) -> Iterator[RowSupervisor]:
    """A supervisor for one stream. What it cannot do because the model does not load is raised as
    ModelError."""
    supervisor = _idle.pop() if _idle else RowSupervisor(serve, WORK)
    try:
        yield supervisor
    except ProcessError as error:
        if error.starting:
            raise ModelError(f"cannot load model {config.model!r}: it {error}") from error
        raise
    finally:
        _idle.append(supervisor)


def _row(image: Any, caption: Any) -> tuple[Any, Any]:
    return (image if isinstance(image, str | None) else as_bytes(image)), caption


def _limits(config: ModelConfig) -> Limits:
    memory = config.batch_memory or max(LEAST_MEMORY, machine_memory() // 4)
    return Limits(config.batch_timeout, memory)
