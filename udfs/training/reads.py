"""Where in a batch of trees numbers are read and reasons learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Reads:
    """Where in a batch of trees numbers are read and reasons learned, filled while trees grow."""

    rows: list[int] = field(default_factory=list)
    columns: list[list[int]] = field(default_factory=list)  # (R, N)
    reason_rows: list[int] = field(default_factory=list)
    reason_columns: list[int] = field(default_factory=list)
    reason_targets: list[int] = field(default_factory=list)

    def number(self, row: int, columns: list[int]) -> int:
        """Note a number to be read; return its index."""
        self.rows.append(row)
        self.columns.append(columns)
        return len(self.rows) - 1

    def reason(self, row: int, last: int, tokens: Sequence[int], end: int) -> None:
        """Note that `tokens`, the last of which stands at `end`, follow column `last`."""
        first = end - len(tokens) + 1
        self.reason_rows.extend([row] * len(tokens))
        self.reason_columns.extend([last, *range(first, end)])
        self.reason_targets.extend(tokens)
