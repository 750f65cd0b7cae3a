"""What each step of a stage sees: a pure function of (seed, stage, step), so that a training that
was killed goes on with the very same steps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from udfs.core.metrics import METRICS
from udfs.training.altered_captions import altered
from udfs.training.examples import Examples
from udfs.training.garbled_captions import garbled
from udfs.training.score_balance import balanced

LOOKALIKES = (3, 40)
"""Rivals by looks come from these ranks of nearest images: the nearest may be the same figure."""


TRIES = 50
"""So often another image is drawn until it has a caption and is of the same group."""


@dataclass(frozen=True)
class Ranked:
    """An image with captions whose order is known: `own` that match it, of each a copy with details
    `altered` and one with its writing `garbled` (None where there is none), and `rivals` of other
    images."""

    image: int
    own: tuple[str, ...]
    altered: tuple[str | None, ...]
    garbled: tuple[str | None, ...]
    rivals: tuple[str, ...]


def rng(*key: object) -> np.random.Generator:
    """A generator that depends on nothing but its key."""
    digest = hashlib.blake2b("\0".join(map(str, key)).encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def turn(count: int, size: int, step: int, *key: object) -> list[int]:
    """The `size` of `count` rows that step `step` sees: each row once an epoch, in a new order
    each epoch."""
    if not count or not size:
        return []
    rows: list[int] = []
    at = step * size
    while len(rows) < size:
        epoch, place = divmod(at + len(rows), count)
        order = rng(*key, epoch).permutation(count)
        rows.extend(int(row) for row in order[place : place + size - len(rows)])
    return rows


def ranked(
    examples: Examples,
    image: int,
    rivals: float,
    near: NDArray[np.int64] | None,
    key: tuple[object, ...],
    count: int = 1,
) -> Ranked:
    """`count` of an image's own captions (as far as it has them), their spoiled copies, and (on
    average) `rivals` captions of other images: in turn of the same group, of a look-alike (`near`
    (N, K) nearest images), and of any. Only the first caption has a garbled copy: writing is easily
    told."""
    draw = rng(*key, examples.uids[image])
    own = examples.captions[image]
    first = int(draw.integers(len(own)))
    chosen = [own[(first + i) % len(own)] for i in range(min(count, len(own)))]
    whole, part = divmod(rivals, 1)
    number = int(whole) + int(part > 0 and draw.random() < part)
    others = _others(examples, image, number, near, draw)
    details = tuple(altered(caption, draw) for caption in chosen)
    writing = (garbled(chosen[0], draw), *(None for _ in chosen[1:]))
    return Ranked(image, tuple(chosen), details, writing, tuple(others))


def _others(
    examples: Examples,
    image: int,
    count: int,
    near: NDArray[np.int64] | None,
    draw: np.random.Generator,
) -> list[str]:
    """Captions of other images: in turn of the same group, of a look-alike, and of any."""
    found: list[str] = []
    for i in range(count):
        other = _other(examples, image, i % 3, near, draw)
        texts = examples.captions[other]
        text = texts[draw.integers(len(texts))] if texts else ""
        if text and other != image and text not in examples.captions[image] and text not in found:
            found.append(text)
    return found


def _other(
    examples: Examples,
    image: int,
    way: int,
    near: NDArray[np.int64] | None,
    draw: np.random.Generator,
) -> int:
    if way == 1 and near is not None:
        low, high = LOOKALIKES
        high = min(high, near.shape[1])
        return int(near[image, draw.integers(min(low, high - 1), high)])
    count = len(examples.images)
    other = image
    for _ in range(TRIES):
        other = int(draw.integers(count))
        fits = way != 0 or examples.groups[other] == examples.groups[image]
        if fits and examples.captions[other] and other != image:
            return other
    return other


def epoch_of_scores(examples: Examples, seed: object, epoch: int) -> list[tuple[int, list[int]]]:
    """One epoch of scored pairs, balanced for each metric on its own: (index into
    `examples.scored`, the metrics asked of it)."""
    asked: dict[int, list[int]] = {}
    for m, metric in enumerate(METRICS):
        rows = [i for i, pair in enumerate(examples.scored) if not np.isnan(pair.scores[m])]
        keys = [examples.uids[examples.scored[i].image] + examples.scored[i].caption for i in rows]
        scores = np.array([examples.scored[i].scores[m] for i in rows])
        for row in balanced(keys, scores, len(rows), f"{seed} {epoch} {metric}"):
            asked.setdefault(rows[int(row)], []).append(m)
    pairs = sorted(asked)
    order: Sequence[int] = rng(seed, epoch, "scores").permutation(len(pairs)).tolist()
    return [(pairs[i], asked[pairs[i]]) for i in order]
