"""Which examples an epoch sees: a sample that is uniform over the values of the scores.

Teachers cluster on a few scores, and a model trained on such a sample learns the clusters. The
paper draws 4,000 of 40,000 answers uniformly over the values (arXiv 2403.02677, section 3.2). Here
values are binned, and each metric is balanced on its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from udfs.core.metrics import METRICS
from udfs.training.examples import Examples, Instruction

BINS = 10
MOST_REPEATS = 3
"""A row of a thin bin is drawn about so many times as often as without balancing, at most."""


class Item(NamedTuple):
    """What is packed into one sequence: an image with some of its captions and what is asked of
    each, or (by its index) a conversation."""

    image: int | None
    captions: tuple[tuple[str, tuple[Instruction, ...]], ...] = ()
    conversation: int | None = None


class BalancedSampler:
    """Yields the Items of an epoch, a pure function of the seed and the epoch's number.

    Every epoch has as many items as the first, as a trainer plans its steps by that number; another
    epoch's are cut there, or begin anew. `mix` is the share of conversations among the items.
    """

    def __init__(self, examples: Examples, mix: float, per_item: int, seed: int) -> None:
        self._examples, self._mix, self._per_item, self._seed = examples, mix, per_item, seed
        self._epoch = 0
        self._length = len(self._items(0))

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose items come next; trainers call this."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Item]:
        items = self._items(self._epoch)
        return (items[i % len(items)] for i in range(self._length))

    def _items(self, epoch: int) -> list[Item]:
        rng = np.random.default_rng([self._seed, epoch])
        items, conversations = list(self._scored(rng)), self._examples.conversations
        if conversations and self._mix:
            wanted = max(1, round(len(items) * self._mix / (1 - self._mix)))
            order = [
                i
                for _ in range(-(-wanted // len(conversations)))
                for i in rng.permutation(len(conversations))
            ]
            items += [Item(conversations[i].image, conversation=int(i)) for i in order[:wanted]]
        return [items[i] for i in rng.permutation(len(items))]

    def _scored(self, rng: Generator) -> Iterator[Item]:
        """The drawn instructions by image and caption. One that is drawn twice goes into two
        items."""
        by_image: dict[tuple[int, int], dict[str, list[Instruction]]] = {}
        for metric in range(len(METRICS)):
            own = [row for row in self._examples.instructions if row.metric == metric]
            times: Counter[int] = Counter()
            for index in balanced(np.array([row.score for row in own]), rng).tolist():
                row = own[index]
                captions = by_image.setdefault((row.image, times[index]), {})
                captions.setdefault(row.caption, []).append(row)
                times[index] += 1
        for (image, _), captions in sorted(by_image.items()):
            asked = [(caption, tuple(found)) for caption, found in sorted(captions.items())]
            for start in range(0, len(asked), self._per_item):
                yield Item(image, tuple(asked[start : start + self._per_item]))


def balanced(scores: NDArray[np.float64], rng: Generator) -> NDArray[np.int64]:
    """Indices of as many of the scores (0..100) as there are, some of them several times, drawn so
    that their histogram over BINS is as flat as MOST_REPEATS allows.

    Systematic sampling: each index is drawn as often as expected, rounded up or down.
    """
    count = len(scores)
    bins = np.minimum((scores * BINS / 100).astype(int), BINS - 1)
    filled, sizes = np.unique(bins, return_counts=True)
    size = dict(zip(filled.tolist(), sizes.tolist(), strict=True))
    share = np.array([min(1 / len(filled) / size[b], MOST_REPEATS / count) for b in bins.tolist()])
    order = rng.permutation(count)
    edges = np.cumsum(share[order] / share.sum()) if count else share
    places = (np.arange(count) + rng.random()) / max(count, 1)
    return np.asarray(order[np.searchsorted(edges, places).clip(max=count - 1)])
