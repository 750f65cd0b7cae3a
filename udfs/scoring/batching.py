"""Prepares pairs and runs them in micro-batches: the part that all scorers share.

Every pair gets an answer, whatever is wrong with it. Only rows of the same padded length share a
batch, so the tensor shapes for a row depend on the row alone. A batch that does not fit into memory
is halved, and later ones are made smaller; a batch that fails for another reason is split until the
failing row is alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from udfs.core.visible_text import visible
from udfs.inputs import captions, images
from udfs.processes.activity import Record, unrecorded
from udfs.scoring.results import (
    BAD_IMAGE,
    CAPTION_TRUNCATED,
    EMPTY_CAPTION,
    MODEL_ERROR,
    OK,
    Outcome,
    Scored,
)

log = logging.getLogger(__name__)

DECODING, MODEL = range(2)
WORK = ("decoding the image", "the model")
"""What is recorded of a row: these stages, and the words for them."""

# Rows are padded to a multiple of this, and only rows of the same padded length share a batch. So
# the tensor shapes for a row depend on the row alone, and its score does too, to the last bit:
# padding to the longest row of the batch moved scores by up to 1.4e-4 points (float32, starter).
BUCKET = 16


@dataclass(frozen=True)
class Prepared:
    """A pair that is ready for the model, or its final answer (then `row` is None).

    The scorer decides what a row is; `length` is its number of tokens before padding, and `number`
    its place in the stream.
    """

    row: Any | None
    answer: Scored
    length: int = 0
    number: int = 0

    @property
    def bytes(self) -> int:
        """What the row's picture takes, as tensors."""
        pixels: dict[str, Any] = getattr(self.row, "pixels", {})
        return sum(tensor.nbytes for tensor in pixels.values())


class Encoded(NamedTuple):
    """A picture and a caption, encoded for the model."""

    row: Any
    length: int  # tokens before padding
    cut_at: int | None  # the number of caption tokens left, if the caption was cut


class PairScorer(Protocol):
    """Turns pairs into answers: an MLM (`mlm_scorer.py`) or a dual encoder
    (`dual_encoder_scorer.py`)."""

    limits: Limits

    def explain(self) -> list[str]:
        """How this model runs pairs, and why not faster, in lines for people."""

    def prepare(self, image: Any, caption: Any) -> Prepared:
        """Decode, clean and encode one pair. Thread-safe."""

    def score_prepared(
        self, prepared: Sequence[Prepared], record: Record = unrecorded
    ) -> list[Scored]:
        """Score prepared pairs; the answers are in the same order. `record` is told which are in
        the model."""

    def score(self, images: Sequence[bytes | None], texts: Sequence[str | None]) -> list[Scored]:
        """Score pairs; the answers are in the same order. Never raises because of a pair."""
        prepared = [self.prepare(image, text) for image, text in zip(images, texts, strict=True)]
        return self.score_prepared(prepared)


def prepare(
    image: Any, caption: Any, image_fit: str, encode: Callable[[Any, str], Encoded]
) -> Prepared:
    """Decode and clean one pair and encode it by `encode(picture, text)`; a failure becomes the
    pair's answer.

    `image_fit` as in `udfs.inputs.images.decode`. Thread-safe if `encode` is.
    """
    text = captions.clean(caption)
    try:
        picture = images.decode(image, image_fit)
    except images.ImageError as error:
        return Prepared(None, Scored(BAD_IMAGE, str(error)))
    if not text:
        reason = "null caption" if caption is None else "blank caption"
        return Prepared(None, Scored(EMPTY_CAPTION, reason))
    try:
        row, length, cut_at = encode(picture, text)
    except Exception as error:  # a processor may reject a picture with any exception
        return Prepared(None, Scored(MODEL_ERROR, f"processor: {one_line(error)}"))
    if cut_at is not None:
        reason = f"caption of {len(text)} characters cut at {cut_at} tokens"
        return Prepared(row, Scored(CAPTION_TRUNCATED, reason), length)
    return Prepared(row, Scored(OK, None), length)


def padded(length: int) -> int:
    """The length to which a row of `length` tokens is padded."""
    return -(-length // BUCKET) * BUCKET


class Limits:
    """How large a micro-batch may be: in padded tokens, and in rows as far as memory allows."""

    GROW_AFTER = 16  # successful batches before a larger one is tried again

    def __init__(self, rows: int, tokens: int) -> None:
        self.max_rows = rows
        self.rows = rows
        self.tokens = tokens
        self._successes = 0

    def fit(self, lengths: Sequence[int], suffix: int) -> int:
        """How many of the rows, shortest first, go into the next batch: at least one, and only
        rows of the same padded length as the first."""
        max_rows = max(1, min(self.rows, self.tokens // (lengths[0] + suffix)))
        return sum(length == lengths[0] for length in lengths[:max_rows])

    def cap(self, rows: int) -> None:
        """Never again run more than `rows` at once: more have ended the process."""
        self.max_rows = min(self.max_rows, rows)
        self.rows = min(self.rows, rows)

    def shrink(self, failed: int) -> None:
        """Call after an out-of-memory error with `failed` rows."""
        self.rows = max(1, min(self.rows, failed) // 2)
        self._successes = 0

    def grow(self) -> None:
        """Call after a batch that succeeded."""
        self._successes += 1
        if self._successes >= self.GROW_AFTER and self.rows < self.max_rows:
            self.rows = min(self.rows * 2, self.max_rows)
            self._successes = 0


Run = Callable[[list[Any]], Iterable[Outcome]]
"""Rows of one padded length -> the outcome for each; raises whatever the model raises."""


def score_prepared(
    prepared: Sequence[Prepared],
    limits: Limits,
    run: Run,
    suffix: int = 0,
    record: Record = unrecorded,
) -> list[Scored]:
    """Run prepared pairs in length-sorted micro-batches; the answers are in the original order.

    `suffix` is the number of tokens that are appended to each row. `record` is told the rows of
    each micro-batch.
    """
    answers = [pair.answer for pair in prepared]
    waiting = sorted(
        (i for i, pair in enumerate(prepared) if pair.row is not None),
        key=lambda i: prepared[i].length,
    )
    while waiting:
        count = limits.fit([padded(prepared[i].length) for i in waiting], suffix)
        batch, waiting = waiting[:count], waiting[count:]
        outcomes = _run_rows([prepared[i] for i in batch], limits, run, record)
        for i, outcome in zip(batch, outcomes, strict=True):
            answers[i] = answers[i].with_outcome(outcome)
    return answers


def _run_rows(
    rows: list[Prepared], limits: Limits, run: Run, record: Record
) -> list[Outcome | str]:
    """The outcome for each row, or the reason why there is none."""
    outcomes: Iterable[Outcome] = ()
    error: Exception | None = None
    with record(MODEL, [row.number for row in rows]):
        try:
            outcomes = run([row.row for row in rows])
        except Exception as raised:
            if not is_out_of_memory(raised) and is_fatal(raised):
                raise  # the device is lost: another process has to go on
            error = raised
    if error is not None:
        out_of_memory = is_out_of_memory(error)
        if out_of_memory:
            free_memory()
            limits.shrink(len(rows))
        if len(rows) == 1:
            return ["out of memory for a single pair" if out_of_memory else one_line(error)]
        log.warning("batch of %d failed, halving it: %s", len(rows), one_line(error))
        half = len(rows) // 2
        return [
            outcome
            for part in (rows[:half], rows[half:])
            for outcome in _run_rows(part, limits, run, record)
        ]
    limits.grow()
    return [o if np.isfinite(o).all() else "the model's output is not finite" for o in outcomes]


def one_line(error: BaseException) -> str:
    """The error's type and the first line of its message."""
    return f"{type(error).__name__}: {visible(str(error).split(chr(10))[0][:200])}"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a smaller batch might work."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def is_fatal(error: BaseException) -> bool:
    """Whether this is a CUDA error, after which the process's device context cannot be used any
    more (unless it is out of memory)."""
    return isinstance(error, RuntimeError) and "CUDA error" in str(error)


def free_memory() -> None:
    """Release the memory of a failed batch."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
