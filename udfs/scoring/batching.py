"""Pairs made ready, and micro-batches of them: what every scorer has in common.

Every pair gets an answer, whatever is wrong with it. Rows of one padded length share a batch, so
that the shapes that a row is computed with depend on the row alone. A batch that does not fit into
memory is halved, and later ones are made smaller; a batch that fails is taken apart until the row
that fails stands alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from udfs.inputs import captions, images
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

# Rows are padded to a multiple of this, and only rows of one padded length share a batch. So
# the shapes that a row is computed with depend on the row alone, and so does its score, to the last
# bits: padding to the longest neighbour moved scores by up to 1.4e-4 points (float32, starter).
BUCKET = 16


@dataclass(frozen=True)
class Prepared:
    """A pair that is ready for the model, or (`row` None) its final answer.

    What a row is, its scorer decides; `length` is its number of tokens before padding.
    """

    row: Any | None
    answer: Scored
    length: int = 0


class Encoded(NamedTuple):
    """A picture and a caption as the model takes them."""

    row: Any
    length: int  # tokens before padding
    cut_at: int | None  # how many tokens of the caption were kept, where some were not


class PairScorer(Protocol):
    """What turns pairs into answers: an MLM (`mlm_scorer.py`) or a dual encoder
    (`dual_encoder_scorer.py`)."""

    def prepare(self, image: Any, caption: Any) -> Prepared:
        """Decode, clean and encode one pair; safe to call from several threads at once."""

    def score_prepared(self, prepared: Sequence[Prepared]) -> list[Scored]:
        """Score prepared pairs; answers in the order given."""

    def score(self, images: Sequence[bytes | None], texts: Sequence[str | None]) -> list[Scored]:
        """Score pairs in the order given. Never raises for a pair."""
        prepared = [self.prepare(image, text) for image, text in zip(images, texts, strict=True)]
        return self.score_prepared(prepared)


def prepare(
    image: Any, caption: Any, image_fit: str, encode: Callable[[Any, str], Encoded]
) -> Prepared:
    """Decode and clean one pair, and `encode(picture, text)` it; what fails is its answer.

    `image_fit` as in `udfs.inputs.images.decode`. Safe in several threads at once where `encode`
    is.
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
    except Exception as error:  # a processor may refuse a picture in ways of its own
        return Prepared(None, Scored(MODEL_ERROR, f"processor: {one_line(error)}"))
    if cut_at is not None:
        reason = f"caption of {len(text)} characters cut at {cut_at} tokens"
        return Prepared(row, Scored(CAPTION_TRUNCATED, reason), length)
    return Prepared(row, Scored(OK, None), length)


def padded(length: int) -> int:
    """The length to which a row of `length` tokens is padded."""
    return -(-length // BUCKET) * BUCKET


class Limits:
    """How large a micro-batch may be: by padded tokens, and by rows as memory has shown."""

    GROW_AFTER = 16  # batches without an error before trying a larger one again

    def __init__(self, rows: int, tokens: int) -> None:
        self.most_rows = rows
        self.rows = rows
        self.tokens = tokens
        self._good = 0

    def fit(self, lengths: Sequence[int], suffix: int) -> int:
        """How many of the rows, shortest first, go into the next batch: at least one, and only
        such as have the first one's padded length."""
        room = max(1, min(self.rows, self.tokens // (lengths[0] + suffix)))
        return sum(length == lengths[0] for length in lengths[:room])

    def shrink(self, failed: int) -> None:
        """After an out-of-memory error with `failed` rows."""
        self.rows = max(1, min(self.rows, failed) // 2)
        self._good = 0

    def grow(self) -> None:
        """After a batch that worked."""
        self._good += 1
        if self._good >= self.GROW_AFTER and self.rows < self.most_rows:
            self.rows = min(self.rows * 2, self.most_rows)
            self._good = 0


Run = Callable[[list[Any]], Iterable[Outcome]]
"""Rows of one padded length -> what the model says of each; raises what the model raises."""


def score_prepared(
    prepared: Sequence[Prepared], limits: Limits, run: Run, suffix: int = 0
) -> list[Scored]:
    """Run prepared pairs in length-sorted micro-batches; answers in the order given.

    `suffix` is the number of tokens that each row has beyond its own.
    """
    answers = [pair.answer for pair in prepared]
    waiting = sorted(
        (i for i, pair in enumerate(prepared) if pair.row is not None),
        key=lambda i: prepared[i].length,
    )
    while waiting:
        count = limits.fit([padded(prepared[i].length) for i in waiting], suffix)
        batch, waiting = waiting[:count], waiting[count:]
        outcomes = _run_rows([prepared[i].row for i in batch], limits, run)
        for i, outcome in zip(batch, outcomes, strict=True):
            answers[i] = answers[i].with_outcome(outcome)
    return answers


def _run_rows(rows: list[Any], limits: Limits, run: Run) -> list[Outcome | str]:
    """What the model says of each row, or why it says nothing."""
    try:
        found = run(rows)
    except Exception as error:
        no_memory = is_out_of_memory(error)
        if not no_memory and is_fatal(error):
            raise  # the device is lost: let Spark start this task anew in another process
        if no_memory:
            free_memory()
            limits.shrink(len(rows))
        if len(rows) == 1:
            return ["out of memory for a single pair" if no_memory else one_line(error)]
        log.warning("batch of %d failed, halving it: %s", len(rows), one_line(error))
        half = len(rows) // 2
        return _run_rows(rows[:half], limits, run) + _run_rows(rows[half:], limits, run)
    limits.grow()
    return [o if np.isfinite(o).all() else "the model's output is not finite" for o in found]


def one_line(error: BaseException) -> str:
    """The error's kind and the first line of its text."""
    return f"{type(error).__name__}: {str(error).split(chr(10))[0][:200]}"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a smaller batch might do."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def is_fatal(error: BaseException) -> bool:
    """A CUDA error that is not about memory leaves the process's device context unusable."""
    return isinstance(error, RuntimeError) and "CUDA error" in str(error)


def free_memory() -> None:
    """Give back what a failed batch left behind."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
