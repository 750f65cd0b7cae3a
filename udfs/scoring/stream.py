"""Scores a stream of batches, decoding images ahead of the model.

Threads decode and prepare the next chunks while the model works on the current one. A limited
number of chunks waits in between, so the model never idles and memory does not fill up. There is
one answer for each pair, in the order of the input.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from udfs.inputs.images import ImageError
from udfs.scoring.batching import PairScorer, Prepared
from udfs.scoring.results import BAD_IMAGE, Scored

CHUNK_ROWS = 64  # sorted by length together; more would pad less but take more memory
CHUNKS_AHEAD = 2

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


def score_stream(
    scorer: PairScorer,
    batches: Iterable[Pairs],
    meter: Meter,
    threads: int = 2,
    read: Callable[[Any], Any] | None = None,
    chunk_rows: int = CHUNK_ROWS,
) -> Iterator[list[Scored]]:
    """Yield the answers for each batch: one for each pair, in the same order.

    If the image column holds paths, `read` turns each into bytes. It runs in the decoding threads,
    and an ImageError that it raises becomes the row's answer.
    """

    def prepare(image: Any, caption: Any) -> tuple[Prepared, float]:
        started = time.perf_counter()
        try:
            prepared = scorer.prepare(read(image) if read else image, caption)
        except ImageError as error:
            prepared = Prepared(None, Scored(BAD_IMAGE, str(error)))
        return prepared, time.perf_counter() - started

    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        waiting: deque[tuple[list[Future[tuple[Prepared, float]]], bool]] = deque()
        answers: list[Scored] = []

        def finish_first() -> bool:
            """Score the chunk that has waited longest; return whether it ends a batch."""
            futures, ends_batch = waiting.popleft()
            started = time.perf_counter()
            prepared = []
            for future in futures:
                pair, seconds = future.result()
                prepared.append(pair)
                meter.decode += seconds
            decoded = time.perf_counter()
            answers.extend(scorer.score_prepared(prepared))
            meter.wait += decoded - started
            meter.model += time.perf_counter() - decoded
            return ends_batch

        try:
            for images, captions in batches:
                count = len(captions)
                for start in range(0, max(count, 1), chunk_rows):
                    stop = min(start + chunk_rows, count)
                    chunk = [
                        pool.submit(prepare, images[i], captions[i]) for i in range(start, stop)
                    ]
                    waiting.append((chunk, stop >= count))
                    if len(waiting) > CHUNKS_AHEAD and finish_first():
                        yield answers
                        answers = []
            while waiting:
                if finish_first():
                    yield answers
                    answers = []
        finally:
            # A consumer that stops early (LIMIT, a killed task) must not wait for unused chunks.
            for futures, _ in waiting:
                for future in futures:
                    future.cancel()
