"""The rows of a stream: which wait, which are with the child, which have an answer."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

PIECE_ROWS = 64
PIECE_BYTES = 64 << 20
"""What goes to the child at a time: so many rows or bytes, but at least one row."""


@dataclass
class Batch:
    """Rows that came together; their answers leave together."""

    rows: list[Row] = field(default_factory=list)
    unanswered: int = 0


@dataclass(eq=False, slots=True)
class Row:
    """A row with its value until it has an answer; how often it ended the process alone."""

    value: Any
    batch: Batch
    answer: Any = None
    crashes: int = 0

    def settle(self, answer: Any) -> None:
        """Give the row its answer; its value is not needed any more."""
        self.answer, self.value = answer, None
        self.batch.unanswered -= 1


class RowQueue:
    """The rows of `batches`, each read when a row of it is needed.

    A row goes to the child in a pass with others, or in a pass alone if it is suspected. What has
    no answer when a pass is broken off goes into a later one.
    """

    def __init__(self, batches: Iterator[Sequence[Any]]) -> None:
        self._batches = batches
        self._unfinished: deque[Batch] = deque()
        self._waiting: deque[Row] = deque()
        self._suspects: deque[Row] = deque()
        self._sent: deque[Row] = deque()  # in this pass, without an answer
        self._answered = 0  # rows in this pass
        self.alone: Row | None = None  # the only row of this pass

    def has_more(self) -> bool:
        """Whether there are rows for another pass."""
        if not self._suspects and not self._waiting:
            self._read()
        return bool(self._suspects or self._waiting)

    def begin(self) -> None:
        """Begin a pass: of one suspect, or where there are none, of all rows."""
        self._sent.clear()
        self._answered = 0
        self.alone = self._suspects.popleft() if self._suspects else None

    def piece(self) -> list[Any] | None:
        """The values of the next rows of this pass; None at its end."""
        if self.alone is not None:
            if self._sent or self._answered:
                return None
            self._sent.append(self.alone)
            return [self.alone.value]
        if not self._waiting:
            self._read()
        values: list[Any] = []
        size = 0
        # Not across batches: they are scored as they come.
        batch = self._waiting[0].batch if self._waiting else None
        while self._waiting and len(values) < PIECE_ROWS and size < PIECE_BYTES:
            if self._waiting[0].batch is not batch:
                break
            row = self._waiting.popleft()
            self._sent.append(row)
            values.append(row.value)
            size += sum(len(part) for part in row.value if isinstance(part, bytes | bytearray))
        return values or None

    def settle(self, answers: Collection[Any]) -> None:
        """Take answers for the first rows of this pass that have none."""
        for answer in answers:
            self._sent.popleft().settle(answer)
        self._answered += len(answers)

    def suspects(self, numbers: Collection[int]) -> list[Row]:
        """The rows without an answer that have these numbers in this pass."""
        first, sent = self._answered, list(self._sent)
        return [sent[n - first] for n in sorted({*numbers}) if first <= n < first + len(sent)]

    def break_off(self, suspects: Collection[Row]) -> None:
        """End this pass; `suspects` go alone next, and the others after them."""
        if self.alone is not None:
            if self.alone.value is not None:
                self._suspects.appendleft(self.alone)
            return
        self._suspects.extend(suspects)
        self._waiting.extendleft(row for row in reversed(self._sent) if row not in suspects)

    def finished(self) -> Iterator[list[Any]]:
        """The answers of each batch that is next and has them all."""
        while self._unfinished and not self._unfinished[0].unanswered:
            yield [row.answer for row in self._unfinished.popleft().rows]

    def _read(self) -> None:
        """Read batches up to the next one that has rows."""
        for values in self._batches:
            batch = Batch(unanswered=len(values))
            batch.rows = [Row(value, batch) for value in values]
            self._unfinished.append(batch)
            self._waiting.extend(batch.rows)
            if batch.rows:
                return
