"""The crash table of docs/recovery.md, from what the tests of faults found."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

BEGIN, END = "<!-- crash table: begin -->", "<!-- crash table: end -->"
HEADER = "| event | in the table then | what you see | exit code | what to do | test | run |"


@dataclass(frozen=True)
class Line:
    """What one test of a fault found."""

    event: str
    table: str
    sentence: str
    code: int
    remedy: str
    test: str
    seconds: float


@dataclass
class Results:
    """The lines of one run of the tests."""

    lines: list[Line] = field(default_factory=list)

    def add(self, line: Line) -> None:
        """Note what a test found."""
        self.lines.append(line)

    def write(self, page: Path) -> None:
        """Put the lines between the page's two marks, in the place of those of the same tests."""
        command = ["git", "rev-parse", "--short", "HEAD"]
        commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        made = f"{datetime.now(UTC):%Y-%m-%d}, {commit}"
        text = page.read_text()
        before, _, rest = text.partition(BEGIN)
        table, _, after = rest.partition(END)
        rows = {test: row for row in table.splitlines() if (test := _test_of(row))}
        rows |= {line.test: _row(line, made) for line in self.lines}
        body = "\n".join([HEADER, "|---" * 7 + "|", *rows.values()])
        page.write_text(f"{before}{BEGIN}\n{body}\n{END}{after}")


def _row(line: Line, made: str) -> str:
    cells = (
        line.event,
        line.table,
        line.sentence.replace("|", "\\|"),
        str(line.code),
        line.remedy,
        f"`{line.test}`",
        f"{made}, {line.seconds:.0f} s",
    )
    return f"| {' | '.join(cells)} |"


def _test_of(row: str) -> str | None:
    found = re.search(r"\| `([^`]+::[^`]+)` \|", row)
    return found[1] if found else None
