"""Sequences of like length go through a model together: less of what it computes is padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

PIECES, AT_LEAST = 4, 4
"""A batch falls into so many pieces at most, with so many sequences each at least. With captions of
128 tokens a step's images differ threefold in length: a third of what was computed for them in one
piece was padding, in four a ninth is."""


def alike(lengths: Sequence[int]) -> list[list[int]]:
    """Indices of sequences by length, the longest first, in pieces of about the same size."""
    order = np.argsort(-np.asarray(lengths), kind="stable")
    count = max(1, min(PIECES, len(order) // AT_LEAST))
    return [piece.tolist() for piece in np.array_split(order, count)]


def together(found: Sequence[Tensor], pieces: Sequence[Sequence[int]]) -> Tensor:
    """What was found of each piece, (., L, D), as one (B, L, D) in the order that `pieces` were
    made of; zeros where a piece was shorter."""
    from torch.nn.utils.rnn import pad_sequence

    rows = [row for piece in found for row in piece]
    back = np.argsort(np.concatenate(pieces))
    return pad_sequence([rows[place] for place in back], batch_first=True)
