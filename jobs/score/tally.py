"""What a run of scoring has done so far: rows by status, seconds by stage."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from udfs.scoring.results import RETRIED, STATUSES
from udfs.spark import STAGES

from ..core.job_runner import say


@dataclass
class Tally:
    """Rows by status and seconds by stage, so far in this run."""

    statuses: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    def add(self, observed: dict[str, Any]) -> int:
        """Add the counts of one observation; return its number of rows."""
        for status in STATUSES:
            if observed.get(status):
                self.statuses[status] += observed[status]
        for stage in STAGES:
            self.seconds[stage] += observed.get(f"seconds_{stage}") or 0.0
        return sum(observed.get(status) or 0 for status in STATUSES)

    def by_status(self) -> dict[str, int]:
        """The rows by status, in the order of the statuses' names."""
        return dict(sorted(self.statuses.items()))

    def say(self, rate: float) -> None:
        """Print the summary for people; `rate` in rows a second."""
        counts = self.by_status()
        text = ", ".join(f"{status} {count:,}" for status, count in counts.items())
        say(f"rows: {text or 'nothing to do'}")
        if rate:
            stages = ", ".join(f"{stage} {self.seconds[stage]:.1f} s" for stage in STAGES)
            say(f"{rate:.2f} rows/s; task seconds: {stages}")
        failed = [status for status in RETRIED if counts.get(status)]
        if failed:
            say(f"the column `reason` says why; --retry {failed[0]} scores such rows again")
