"""What a step computes: out of a plan, the losses of a stage.

A module, so that data-parallel wrappers see one forward pass whatever a stage computes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253 - a torch module; only `train.py` imports it, where training begins

from udfs.training import ranking_losses, teacher_losses
from udfs.training.examples import Examples
from udfs.training.loss_inputs import Inputs
from udfs.training.ranking_losses import Told
from udfs.training.recipe import Recipe, Stage
from udfs.training.step_plans import Plan
from udfs.training.student import Student
from udfs.training.teacher_losses import Questions

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Prepared:
    """A plan, and what of it the losses `rank`, `score` and `reason` need laid out."""

    plan: Plan
    told: Told | None = None
    questions: Questions | None = None


class Objective(torch.nn.Module):
    """The losses of a stage's plan. `features` (N, V, I, F) is what the projector reads of V views
    of each image."""

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

    def prepare(self, plan: Plan, stage: Stage) -> Prepared:
        """What can be done before a step without the model, and in another process
        (`step_prefetch.py`)."""
        told, questions, weights = None, None, stage.weights
        if weights.rank and plan.ranked:
            told = ranking_losses.tell(self.inputs, plan.ranked, stage)
        if plan.scored and (weights.score or weights.reason):
            questions = teacher_losses.lay_out(self.inputs, plan.scored, stage, plan.turn)
        return Prepared(plan, told, questions)

    def forward(self, given: Plan | Prepared, stage: Stage) -> dict[str, Tensor]:
        """Each loss of the stage that a plan (or what `prepare` made of it) has rows for,
        unweighted."""
        prepared = self.prepare(given, stage) if isinstance(given, Plan) else given
        found: dict[str, Tensor] = {}
        turn = prepared.plan.turn
        if prepared.told:
            found["rank"] = ranking_losses.rank(self.inputs, prepared.told, stage, turn)
        if prepared.questions:
            found |= teacher_losses.score(self.inputs, prepared.questions, stage, turn)
        return found
