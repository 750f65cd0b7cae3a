"""One sequence for an image and any number of captions, questions and answers: a tree of tokens.

Each token sees itself and its ancestors, and stands at the position of its depth. So a branch
(image, caption, question, number) is computed exactly as if it stood alone, as in scoring
(`udfs.scoring.packing`), while what branches share, the image above all, is computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from udfs.scoring.number_tree import NumberTree

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROOT = -1


class TokenTree:
    """Tokens with their parents, in an order in which parents come first."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.parents: list[int] = []
        self.depths: list[int] = []

    def __len__(self) -> int:
        return len(self.ids)

    def extend(self, parent: int, tokens: Sequence[int]) -> int:
        """Hang a chain of tokens below `parent` (an index, or ROOT); return the last one's index
        (`parent` itself where there are no tokens)."""
        for token in tokens:
            depth = self.depths[parent] + 1 if parent >= 0 else 0
            self.ids.append(token)
            self.parents.append(parent)
            self.depths.append(depth)
            parent = len(self.ids) - 1
        return parent

    def ask(self, parent: int, question: Sequence[int], tree: NumberTree) -> list[int]:
        """Hang a question and its number tree below `parent`; return the columns (N,) whose logits
        decide at each node of the number tree."""
        columns = [self.extend(parent, question)]
        for node in tree.nodes[1:]:
            columns.append(self.extend(columns[node.parent], [node.token]))
        return columns

    def visible(self) -> NDArray[np.bool_]:
        """(L, L): who sees whom."""
        seen = np.zeros((len(self), len(self)), dtype=np.bool_)
        for i, parent in enumerate(self.parents):
            if parent >= 0:
                seen[i] = seen[parent]
            seen[i, i] = True
        return seen
