"""Which rows a process works on and since when, in memory that its parent can read after its death.

activity = Activity()              # before the fork
with activity.working(0, [17]):    # in the child: stage 0, row 17
    ...
activity.tasks()                   # in the parent, at any time
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

SLOTS = 32
"""At most so many threads work at once."""
MOST_ROWS = 64
"""That one of them works on."""

_SINCE, _STAGE, _COUNT, _ROWS = range(4)
_WIDTH = _ROWS + MOST_ROWS

Record = Callable[[int, Sequence[int]], AbstractContextManager[None]]
"""`with record(stage, rows):` says what is worked on inside the block."""


def unrecorded(stage: int, rows: Sequence[int]) -> AbstractContextManager[None]:
    """A `Record` for work that nobody watches."""
    return nullcontext()


@dataclass(frozen=True)
class Task:
    """What one thread works on: numbers of rows, in a stage, since a time of `time.monotonic`."""

    stage: int
    rows: tuple[int, ...]
    since: float


class Activity:
    """The tasks of one process. Written by its threads, read by its parent."""

    def __init__(self) -> None:
        # Numbers of eight bytes, which are written and read whole.
        self._cells = memoryview(mmap.mmap(-1, 8 * SLOTS * _WIDTH)).cast("q")
        self._free = list(range(SLOTS))

    @contextmanager
    def working(self, stage: int, rows: Sequence[int]) -> Iterator[None]:
        """Record these rows (at most MOST_ROWS) until the end of the block; an error that leaves
        the block ends the process or its work, so they remain recorded until `clear`."""
        slot = self._free.pop()
        first = slot * _WIDTH
        cells = self._cells
        cells[first + _STAGE], cells[first + _COUNT] = stage, len(rows)
        for place, row in enumerate(rows, first + _ROWS):
            cells[place] = row
        cells[first + _SINCE] = time.monotonic_ns()  # last: only now does the slot count
        yield
        cells[first + _SINCE] = 0
        self._free.append(slot)

    def clear(self) -> None:
        """Forget all tasks. Only while no thread works."""
        for first in range(0, SLOTS * _WIDTH, _WIDTH):
            self._cells[first + _SINCE] = 0
        self._free = list(range(SLOTS))

    def tasks(self) -> list[Task]:
        """What is being worked on."""
        cells = self._cells
        return [
            Task(
                cells[first + _STAGE],
                tuple(cells[first + _ROWS : first + _ROWS + cells[first + _COUNT]]),
                since / 1e9,
            )
            for first in range(0, SLOTS * _WIDTH, _WIDTH)
            if (since := cells[first + _SINCE])
        ]
