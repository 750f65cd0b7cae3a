"""The crash table of docs/recovery.md, from what the tests of faults found."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

BEGIN, END = "<!-- crash table: begin -->", "<!-- crash table: end -->"
HEADER = "| event | in the table then | what you see | exit code | what to do | test |"


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

    def table(self, commit: str, day: str) -> str:
        """The table in Markdown, in the order in which the tests ran."""
        rows = [
            " | ".join(
                (
                    line.event,
                    line.table,
                    line.sentence.replace("|", "\\|"),
                    str(line.code),
                    line.remedy,
                    f"`{line.test}`, {line.seconds:.0f} s",
                )
            )
            for line in self.lines
        ]
        about = f"Made by `./build.sh test --faults` on {day}, from commit {commit}."
        body = [HEADER, "|---" * 6 + "|", *(f"| {row} |" for row in rows)]
        return "\n".join([about, "", *body])

    def write(self, page: Path) -> None:
        """Put the table between the page's two marks."""
        if not self.lines:
            return
        command = ["git", "rev-parse", "--short", "HEAD"]
        commit = subprocess.run(command, capture_output=True, text=True).stdout.strip()
        text = page.read_text()
        before, _, rest = text.partition(BEGIN)
        _, _, after = rest.partition(END)
        table = self.table(commit or "unknown", f"{datetime.now(UTC):%Y-%m-%d}")
        page.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")
