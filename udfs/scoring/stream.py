"""Scores a stream of batches, decoding images ahead of the model.

Threads decode and prepare the next chunks while the model works on the current one. A limited
number of rows, and of bytes, waits in between, so the model never idles and memory does not fill
up. There is one answer for each pair, in the order of the input.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from udfs.inputs.images import ImageError
from udfs.processes.activity import Record, unrecorded
from udfs.scoring.batching import DECODING, PairScorer, Prepared
from udfs.scoring.results import BAD_IMAGE, Scored

CHUNK_ROWS = 64  # sorted by length together; more would pad less but take more memory
CHUNKS_AHEAD = 2
IMAGE_MEMORY = 512 * 1024 * 1024

Pairs = tuple[Sequence[Any], Sequence[Any]]  # images (bytes or paths) and captions, side by side


@dataclass
class Meter:
    """Seconds of one task by stage. `decode` is summed over threads; `wait` is how long the model
    waited for input or decoding, `model` how long it ran."""

    load: float = 0.0
    decode: float = 0.0
    wait: float = 0.0
    model: float = 0.0

    def take(self) -> dict[str, float]:
        """The seconds since the last call, by stage."""
        seconds = {"load": self.load, "decode": self.decode, "wait": self.wait, "model": self.model}
        self.load = self.decode = self.wait = self.model = 0.0
        return seconds

    def add(self, seconds: Mapping[str, float]) -> None:
        """Add what another meter's `take` returned."""
        for stage, value in seconds.items():
            setattr(self, stage, getattr(self, stage) + value)


class _Room:
    """Lets rows be prepared as long as those that wait for the model take less than `limit` bytes;
    the row that the model waits for always is."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._wanted: float = -1
        self._changed = threading.Condition()

    def wait(self, number: int) -> None:
        """Return when the row of this number, counted from 0, may be prepared."""
        with self._changed:
            self._changed.wait_for(lambda: self._used < self._limit or number <= self._wanted)

    def want(self, number: float) -> None:
        """The model waits for this row."""
        with self._changed:
            self._wanted = number
            self._changed.notify_all()

    def take(self, size: int) -> None:
        """Count bytes that are in use, or with a minus are not any more."""
        with self._changed:
            self._used += size
            self._changed.notify_all()


@dataclass(frozen=True)
class _Waiting:
    """A row that is being prepared; without a future, the end of a batch without rows. `raw` is the
    size in bytes of what it is prepared from."""

    number: int
    future: Future[tuple[Prepared, float]] | None
    ends_batch: bool
    raw: int = 0


def score_stream(
    scorer: PairScorer,
    batches: Iterable[Pairs],
    meter: Meter,
    threads: int = 2,
    read: Callable[[Any], Any] | None = None,
    chunk_rows: int = CHUNK_ROWS,
    memory: int = IMAGE_MEMORY,
    record: Record = unrecorded,
) -> Iterator[list[Scored]]:
    """Yield the answers for each batch: one for each pair, in the same order.

    If the image column holds paths, `read` turns each into bytes. It runs in the decoding threads,
    and an ImageError that it raises becomes the row's answer. Rows that wait for the model take
    about `memory` bytes, and so do the images that they are made from; at least one row is ready.
    `record` is told the numbers, counted from 0, of the rows that are decoded or in the model.
    """
    room = _Room(memory)

    def prepare(number: int, image: Any, caption: Any) -> tuple[Prepared, float]:
        room.wait(number)
        started = time.perf_counter()
        with record(DECODING, (number,)):
            try:
                prepared = scorer.prepare(read(image) if read else image, caption)
            except ImageError as error:
                prepared = Prepared(None, Scored(BAD_IMAGE, str(error)))
        prepared = replace(prepared, number=number)
        room.take(prepared.bytes)
        return prepared, time.perf_counter() - started

    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        waiting: deque[_Waiting] = deque()
        answers: list[Scored] = []
        raw = 0  # bytes of the images in `waiting`

        def finish_first() -> bool:
            """Score the rows that have waited longest; return whether they end a batch."""
            nonlocal raw
            started = time.perf_counter()
            prepared: list[Prepared] = []
            ends_batch = False
            size = 0
            while waiting and len(prepared) < chunk_rows and size < memory and not ends_batch:
                row = waiting.popleft()
                ends_batch = row.ends_batch
                raw -= row.raw
                if row.future is not None:
                    room.want(row.number)
                    pair, seconds = row.future.result()
                    prepared.append(pair)
                    size += pair.bytes
                    meter.decode += seconds
            decoded = time.perf_counter()
            answers.extend(scorer.score_prepared(prepared, record))
            room.take(-size)
            meter.wait += decoded - started
            meter.model += time.perf_counter() - decoded
            return ends_batch

        try:
            number = 0
            for images, captions in batches:
                count = len(captions)
                if not count:
                    waiting.append(_Waiting(number, None, True))
                for i in range(count):
                    future = pool.submit(prepare, number, images[i], captions[i])
                    size = len(images[i]) if isinstance(images[i], bytes) else 0
                    waiting.append(_Waiting(number, future, i == count - 1, size))
                    raw += size
                    number += 1
                    full = len(waiting) > CHUNKS_AHEAD * chunk_rows or raw > memory
                    if full and finish_first():
                        yield answers
                        answers = []
            while waiting:
                if finish_first():
                    yield answers
                    answers = []
        finally:
            # A consumer that stops early (LIMIT, a killed task) must not wait for unused rows.
            for row in waiting:
                if row.future is not None:
                    row.future.cancel()
            room.want(math.inf)
