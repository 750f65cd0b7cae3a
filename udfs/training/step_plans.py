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


@dataclass(frozen=True)
class Plan:
    """What one micro-batch holds: `ranked` images, and `scored` pairs with the metrics asked of
    each. `turn` is the plan's number."""

    ranked: Sequence[Ranked] = ()
    scored: Sequence[Asked] = ()
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
        self.captioned = [image for image, own in enumerate(examples.captions) if own]
        self._epochs: dict[str, list[list[Asked]]] = {}
        for stage in recipe.stages:
            self._check(stage)

    def plan(self, stage: Stage, turn: int) -> Plan:
        """What micro-batch number `turn` of a stage holds."""
        key, weights = (self.recipe.seed, stage.name), stage.weights
        ranked: list[Ranked] = []
        if weights.rank:
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
        return Plan(ranked, scored, turn)

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
        for name, size, rows, what in (
            ("rank", stage.ranked, len(self.captioned), "captions that match an image"),
            ("score", stage.scored, len(self.examples.scored), "scored pairs"),
            ("reason", stage.scored, int(reasons), "reasons"),
        ):
            if getattr(weights, name) and not (size and rows):
                number = "its number a step is 0" if rows else "there are none"
                raise ExamplesError(f"stage {stage.name!r}: {name} needs {what}, but {number}")
