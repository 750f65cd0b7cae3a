"""Where in a batch of trees numbers are read and reasons learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from udfs.training.token_tree import TokenTree


@dataclass
class Reads:
    """Where in a batch of trees numbers are read and reasons learned, filled while trees grow."""

    rows: list[int] = field(default_factory=list)
    columns: list[list[int]] = field(default_factory=list)  # (R, N)
    step_rows: list[int] = field(default_factory=list)  # (T,)
    step_columns: list[int] = field(default_factory=list)
    step_nodes: list[int] = field(default_factory=list)
    step_tokens: list[int] = field(default_factory=list)
    reason_rows: list[int] = field(default_factory=list)
    reason_columns: list[int] = field(default_factory=list)
    reason_targets: list[int] = field(default_factory=list)

    def number(self, row: int, columns: list[int]) -> int:
        """Note a number to be read; return its index."""
        self.rows.append(row)
        self.columns.append(columns)
        return len(self.rows) - 1

    def steps(self, row: int, column: int, path: Sequence[tuple[int, int]], tree: TokenTree) -> int:
        """Note `column`, the root, and the steps to a number (`number_probabilities.path`) beyond
        the first one, and hang their tokens below it; return the last one's column."""
        self.number(row, [column])
        for i, (node, token) in enumerate(path):
            if i:
                self.step_rows.append(row)
                self.step_columns.append(column)
                self.step_nodes.append(node)
                self.step_tokens.append(token)
            if i < len(path) - 1:
                column = tree.extend(column, [token])
        return column

    def reason(self, row: int, last: int, tokens: Sequence[int], end: int) -> None:
        """Note that `tokens`, the last of which stands at `end`, follow column `last`."""
        first = end - len(tokens) + 1
        self.reason_rows.extend([row] * len(tokens))
        self.reason_columns.extend([last, *range(first, end)])
        self.reason_targets.extend(tokens)
