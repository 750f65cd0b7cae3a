"""Tokens of several sequences that begin alike, as one tree: what they share is computed once.

Each token sees of the others only those on its branch and stands at the position of its depth, so
that a branch is computed exactly as if it stood alone. Scoring and training both pack their
sequences so.
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
    """Tokens `ids` with their `parents` (indices, or ROOT) and `depths` (0 below ROOT), in an order
    in which parents come first; `answers` says which are the model's to write."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.parents: list[int] = []
        self.depths: list[int] = []
        self.answers: list[bool] = []

    def __len__(self) -> int:
        return len(self.ids)

    def extend(self, parent: int, tokens: Sequence[int], answer: bool = False) -> int:
        """Hang a chain of tokens below `parent` (an index, or ROOT): the prompt's, or an answer's.

        Returns the index of the last one, or `parent` itself where there are no tokens.
        """
        for token in tokens:
            depth = self.depths[parent] + 1 if parent >= 0 else 0
            self.ids.append(token)
            self.parents.append(parent)
            self.depths.append(depth)
            self.answers.append(answer)
            parent = len(self.ids) - 1
        return parent

    def ask(self, parent: int, question: Sequence[int], tree: NumberTree) -> list[int]:
        """Hang a question and its number tree below `parent`.

        Returns the columns (N,) whose logits decide at each node of the number tree.
        """
        columns = [self.extend(parent, question)]
        for node in tree.nodes[1:]:
            columns.append(self.extend(columns[node.parent], [node.token], answer=True))
        return columns

    def path(self, index: int) -> list[int]:
        """The indices from below ROOT down to `index`, which is the last."""
        found: list[int] = []
        while index >= 0:
            found.append(index)
            index = self.parents[index]
        return found[::-1]

    def leaves(self) -> list[int]:
        """The indices of the tokens that nothing hangs below."""
        inner = set(self.parents)
        return [i for i in range(len(self)) if i not in inner]

    def related(self) -> NDArray[np.bool_]:
        """(L, L): whether two tokens share a branch: one is the other, or an ancestor of it."""
        ancestors = np.eye(len(self), dtype=np.bool_)
        for i, parent in enumerate(self.parents):
            if parent >= 0:
                ancestors[i] |= ancestors[parent]
        return ancestors | ancestors.T
