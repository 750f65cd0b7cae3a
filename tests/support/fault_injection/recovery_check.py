"""Checks what a fault has left of a run, and that the same command again mends it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from fault_injection.fault_runs import ROWS, Answers, Case, Run, same, traces
from fault_injection.recovery_table import Line, Results


@dataclass
class Recovery:
    """Checks what a fault has left, runs the job again, and notes both for the page."""

    case: Case
    unbroken: Answers
    results: Results
    test: str
    started: float

    def check(
        self,
        event: str,
        run: Run,
        code: int,
        *,
        says: str | None = "",
        remedy: str = "the same command",
        again: Callable[[], Run] | None = None,
        expected: Answers | None = None,
        least: int = 0,
        most: int = ROWS,
    ) -> None:
        """The run ends with this exit code and a sentence that has `says` (None: without one), and
        no trace; between `least` and `most` rows are in the table, none twice, all right. After
        `remedy` the table is as after an unbroken run, and nothing is left in the temp folder."""
        assert run.wait() == code, run.text()
        assert not traces(run.text()), run.text()
        sentence = run.last_line()
        assert bool(sentence) is (says is not None), run.text()
        assert (says or "") in sentence
        expected = expected or self.unbroken
        there = self.case.answers()
        assert least <= len(there) <= most, f"{len(there)} rows"
        assert same(there, {uid: expected[uid] for uid in there})
        if code or len(there) < len(expected) or again:
            second = again() if again else self.case.start()
            assert second.wait() == 0, second.text()
        assert same(self.case.answers(), expected)
        left = [path.name for path in self.case.temp.iterdir() if "lock" not in path.name]
        assert not [name for name in left if not name.startswith(f"mlm-filter-{os.getuid()}")], left
        self.results.add(
            Line(
                event,
                f"{len(there)} of {len(expected)} rows" if len(there) < len(expected) else "all",
                self._anonymous(sentence.partition(": ")[2]) or "nothing",
                code,
                remedy if code or len(there) < len(expected) or again else "nothing",
                self.test,
                time.monotonic() - self.started,
            )
        )

    def _anonymous(self, text: str) -> str:
        """Without the folders of this test."""
        return text.replace(str(self.case.model), "MODEL").replace(f"{self.case.folder}/", "")
