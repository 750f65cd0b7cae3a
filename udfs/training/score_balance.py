"""Which scored pairs an epoch sees: a sample that is flat over the values of the scores.

Teachers cluster on a few scores; a student trained on such a sample learns the clusters. The paper
keeps 4k of 40k answers, sampled uniformly over the values (arXiv 2403.02677, section 3.2). Here the
values are binned, and each metric is balanced on its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BINS = 10
MOST_REPEATS = 3
"""A pair in a thin bin is drawn at most so often as evenly as it would be without balancing."""


def balanced(
    keys: Sequence[str], scores: NDArray[np.float64], count: int, seed: str
) -> NDArray[np.int64]:
    """Indices of `count` of the scores (0..100), drawn so that their histogram over BINS is flat.

    Bins share `count` equally, save that no row is taken more than MOST_REPEATS times its even
    share: what a thin bin cannot give falls to the others. Within a bin, rows come in rounds, each
    in an order of its own by a hash of (seed, round, key): all once before any twice. The same
    rows, in whatever order they are given, yield the same sample.
    """
    if not len(keys) or count <= 0:
        return np.zeros(0, dtype=np.int64)
    bins = np.minimum((np.asarray(scores) * BINS / 100).astype(int), BINS - 1)
    members = [np.flatnonzero(bins == b) for b in range(BINS)]
    members = [rows for rows in members if len(rows)]
    most = max(1, int(np.ceil(count / len(keys)))) * MOST_REPEATS
    shares = _shares([len(rows) * most for rows in members], count)
    drawn: list[int] = []
    for rows, share in zip(members, shares, strict=True):
        turn = 0
        while share > 0:
            order = sorted(
                rows, key=lambda row: (_hash(seed, turn, keys[int(row)]), keys[int(row)])
            )
            drawn.extend(int(row) for row in order[:share])
            share -= min(share, len(order))
            turn += 1
    return np.array(sorted(drawn, key=lambda row: (_hash(seed, "order", keys[int(row)]), row)))


def _shares(rooms: list[int], count: int) -> list[int]:
    """Split `count` as evenly as the bins' rooms allow, the smallest first."""
    shares = [0] * len(rooms)
    left = min(count, sum(rooms))
    for rank, i in enumerate(sorted(range(len(rooms)), key=lambda i: rooms[i])):
        shares[i] = min(rooms[i], left // (len(rooms) - rank))
        left -= shares[i]
    return shares


def _hash(*parts: object) -> bytes:
    return hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=8).digest()
