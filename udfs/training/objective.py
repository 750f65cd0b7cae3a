"""What a step computes: out of a plan, the losses of a stage.

A module, so that data-parallel wrappers see one forward pass whatever a stage computes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253 - a torch module; only `train.py` imports it, where training begins

from udfs.training import aligning, asking, comparing, imitating, knowing, measuring
from udfs.training.asking import Questions
from udfs.training.common_space import CommonSpace
from udfs.training.comparing import Seen
from udfs.training.examples import Examples
from udfs.training.imitating import Judged
from udfs.training.inputs import Inputs
from udfs.training.knowing import Told
from udfs.training.plans import Plan, Planner
from udfs.training.recipe import Recipe, Stage
from udfs.training.student import Student

if TYPE_CHECKING:
    from torch import Tensor

PRIMED = 2048
"""So many captions behind images tell where `compare` begins."""
MEASURED = 4096
"""And so many how the distance is read."""


@dataclass(frozen=True)
class Prepared:
    """A plan, and what of it the losses `rank`, `assume`, `imitate`, `score` and `reason` need laid
    out."""

    plan: Plan
    told: Told | None = None
    judged: Judged | None = None
    questions: Questions | None = None


class Objective(torch.nn.Module):
    """The losses of a stage's plan. `features` (N, V, I, F) is what the projector reads of V views
    of each image; `inputs.words` and `inputs.sentences` are set before a stage that needs them."""

    def __init__(
        self,
        student: Student,
        examples: Examples,
        features: Any,
        recipe: Recipe,
    ) -> None:
        super().__init__()
        self.model = student.model  # registered: its weights are this module's
        self.inputs = Inputs(student, examples, features, recipe)
        self._space: CommonSpace | None = None
        count = len(student.core.language_model.layers)
        if any(s.compare_depth >= count for s in recipe.stages if s.weights.compare):
            raise ValueError(f"compare_depth: the language model has {count} layers")

    def prepare(self, plan: Plan, stage: Stage) -> Prepared:
        """What can be done before a step without the model, and in another process (`feed.py`)."""
        told, judged, questions, weights = None, None, None, stage.weights
        if stage.ranks and plan.ranked:
            told = knowing.tell(self.inputs, plan.ranked, stage)
        if weights.imitate and plan.imitated:
            judged = imitating.judge(self.inputs, plan.imitated, stage)
        if plan.scored and (weights.score or weights.reason):
            questions = asking.lay_out(self.inputs, plan.scored, stage, plan.turn)
        return Prepared(plan, told, judged, questions)

    def complete(self, prepared: Prepared, stage: Stage) -> Prepared:
        """Let other models say what they have to say to what is prepared: assumed scores."""
        if prepared.told:
            knowing.assume(self.inputs, prepared.told, stage)
        return prepared

    def forward(self, given: Plan | Prepared, stage: Stage) -> dict[str, Tensor]:
        """Each loss of the stage that a plan (or what `prepare` and `complete` made of it) has
        rows for, unweighted."""
        if isinstance(given, Plan):
            prepared = self.complete(self.prepare(given, stage), stage)
        else:
            prepared = given
        found: dict[str, Tensor] = {}
        plan, weights, inputs = prepared.plan, stage.weights, self.inputs
        turn = plan.turn
        if weights.distill and plan.texts:
            found["distill"] = aligning.distill(inputs, plan.texts, stage)
        if weights.align and plan.pairs:
            found["align"] = aligning.align(inputs, plan.pairs, stage, turn)
        if weights.compare and plan.pairs:
            found["compare"] = comparing.compare(
                inputs, self._coordinates(), plan.pairs, plan.texts, stage, turn
            )
        if weights.contrast and plan.pairs:
            found["contrast"] = aligning.contrast(inputs, plan.pairs, stage, turn)
        if prepared.told:
            found |= knowing.known(inputs, prepared.told, stage, turn)
        if prepared.judged:
            found["imitate"] = imitating.imitate(inputs, prepared.judged, stage, turn)
        if prepared.questions:
            found |= asking.score(inputs, prepared.questions, stage, turn)
        return found

    @torch.no_grad()
    def prime(self, planner: Planner, stage: Stage) -> None:
        """Let `compare` begin with what the stage's first plans tell (`comparing.prime`)."""
        comparing.prime(
            self.inputs.student, stage.compare_depth, self._seen(planner, stage, PRIMED)
        )

    @torch.no_grad()
    def measure(self, planner: Planner, stage: Stage) -> str:
        """Add the distance to what the layer that `stage` compared in tells (`measuring.measure`),
        by what its first plans tell; return what was done."""
        student, learning = self.inputs.student, self.model.training
        self.model.eval()  # no dropout
        try:
            batches = self._seen(planner, stage, MEASURED)
            return measuring.measure(student, stage.compare_depth, batches)
        finally:
            self.model.train(learning)

    def _seen(self, planner: Planner, stage: Stage, count: int) -> Iterator[Seen]:
        space, size = self._coordinates(), stage.pairs * (1 + int(stage.rivals))
        for turn in range(-(-count // size)):
            plan = planner.plan(stage, turn)
            yield comparing.look(self.inputs, space, plan.pairs, plan.texts, stage, turn)

    def _coordinates(self) -> CommonSpace:
        if self._space is None:
            self._space = comparing.space(self.inputs)
        return self._space
