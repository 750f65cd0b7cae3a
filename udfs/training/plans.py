"""What each micro-batch of a stage holds, in order; chance comes from `sampling` alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from udfs.training import sampling
from udfs.training.examples import Examples, ExamplesError
from udfs.training.recipe import Recipe, Stage
from udfs.training.sampling import Ranked

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Asked = tuple[int, list[int]]
"""A scored pair (index into the examples' `scored`) and the metrics asked of it."""


Shown = tuple[int, tuple[str, ...]]
"""An image and the captions behind it."""


@dataclass(frozen=True)
class Plan:
    """What one micro-batch holds: matching (image, caption) `pairs`, `texts` by index (to distill,
    or to stand behind the pairs' images, as many behind each), `ranked` images, `scored` pairs with
    the metrics asked of each, and `imitated` images with their own and other captions. `turn`
    is the plan's number."""

    texts: Sequence[int] = ()
    pairs: Sequence[tuple[int, str]] = ()
    ranked: Sequence[Ranked] = ()
    scored: Sequence[Asked] = ()
    imitated: Sequence[Shown] = ()
    turn: int = 0


class Planner:
    """Plans of turns, the same for the same recipe and examples whenever and wherever it is asked.

    `near` (N, K) are each image's nearest others (None: no rivals by looks). Raises ExamplesError
    where a stage has a loss for which there are no examples.
    """

    def __init__(
        self, examples: Examples, recipe: Recipe, near: NDArray[np.int64] | None = None
    ) -> None:
        self.examples = examples
        self.recipe = recipe
        self.near = near
        self.pairs = examples.pairs()
        self.texts = len(examples.texts())
        self.captioned = [image for image, own in enumerate(examples.captions) if own]
        self._epochs: dict[str, list[list[Asked]]] = {}
        for stage in recipe.stages:
            self._check(stage)

    def plan(self, stage: Stage, turn: int) -> Plan:
        """What micro-batch number `turn` of a stage holds."""
        key, weights = (self.recipe.seed, stage.name), stage.weights
        pairs: list[tuple[int, str]] = []
        if weights.align or weights.compare or weights.contrast:
            rows = sampling.turn(len(self.pairs), stage.pairs, turn, *key, "pairs")
            pairs = [self.pairs[row] for row in rows]
        ranked: list[Ranked] = []
        if stage.ranks:
            for row in sampling.turn(len(self.captioned), stage.ranked, turn, *key, "ranked"):
                ranked.append(
                    sampling.ranked(
                        self.examples,
                        self.captioned[row],
                        stage.rivals,
                        self.near,
                        (*key, turn),
                        stage.own,
                    )
                )
        scored: list[Asked] = []
        if weights.score or weights.reason:
            scored = self._scored(stage, turn)
        texts: list[int] = []
        if stage.reads_sentences:
            count = stage.pairs * (int(stage.rivals) if weights.compare else 1)
            texts = sampling.turn(self.texts, count, turn, *key, "texts")
        imitated: list[Shown] = []
        if weights.imitate:
            for row in sampling.turn(len(self.captioned), stage.imitated, turn, *key, "imitated"):
                image = self.captioned[row]
                draw = (*key, turn, "imitated")
                captions = sampling.beside(self.examples, image, stage.beside, self.near, draw)
                imitated.append((image, captions))
        return Plan(texts, pairs, ranked, scored, imitated, turn)

    def _scored(self, stage: Stage, turn: int) -> list[Asked]:
        """Rows [turn * size, turn * size + size) of one epoch after the other."""
        at, found, epoch = turn * stage.scored, list[Asked](), 0
        while len(found) < stage.scored:
            rows = self._epoch(stage, epoch)
            if at < len(rows):
                found += rows[at : at + stage.scored - len(found)]
            at, epoch = max(0, at - len(rows)), epoch + 1
        return found

    def _epoch(self, stage: Stage, epoch: int) -> list[Asked]:
        known = self._epochs.setdefault(stage.name, [])
        while len(known) <= epoch:
            seed = (self.recipe.seed, stage.name)
            known.append(sampling.epoch_of_scores(self.examples, seed, len(known)))
        return known[epoch]

    def _check(self, stage: Stage) -> None:
        weights = stage.weights
        reasons = any(any(pair.reasons) for pair in self.examples.scored)
        matching = "captions that match an image"
        for names, size, rows, what in (
            (("distill",), stage.pairs, self.texts, "captions"),
            (("align", "compare", "contrast"), stage.pairs, len(self.pairs), matching),
            (("rank", "assume"), stage.ranked, len(self.captioned), matching),
            (("imitate",), stage.imitated, len(self.captioned), matching),
            (("score",), stage.scored, len(self.examples.scored), "scored pairs"),
            (("reason",), stage.scored, int(reasons), "reasons"),
        ):
            used = [name for name in names if getattr(weights, name)]
            if used and not (size and rows):
                number = "its number a step is 0" if rows else "there are none"
                raise ExamplesError(f"stage {stage.name!r}: {used[0]} needs {what}, but {number}")
