"""Progress on the terminal: rows done, rows per second, time left."""

from __future__ import annotations

import time

from .job_runner import say


class Progress:
    """Counts the rows of a long piece of work; `total` may be an estimate."""

    def __init__(self, total: int, unit: str = "rows") -> None:
        self.total = total
        self.unit = unit
        self.done = 0
        self.started = time.monotonic()

    @property
    def rate(self) -> float:
        """Units per second so far."""
        return self.done / max(time.monotonic() - self.started, 1e-9)

    def add(self, rows: int) -> None:
        """Count `rows` more and print a line."""
        self.done += rows
        left = max(self.total - self.done, 0) / self.rate if self.done else float("inf")
        share = 100 * self.done // max(self.total, 1)
        say(
            f"  {self.done:,} of {self.total:,} {self.unit} ({share} %)"
            f"  {self.rate:,.1f} {self.unit}/s  {duration(left)} left"
        )


def number(value: float) -> str:
    """A number as people read it: four digits, or all before the point: `0.6821`, `12,346`."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def duration(seconds: float) -> str:
    """A duration as text: `2 h 05 min`, `3 min 20 s`, `12 s`."""
    if seconds == float("inf"):
        return "unknown time"
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    minutes, seconds_left = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds_left:02d} s" if minutes else f"{seconds_left} s"
