"""The result of scoring one pair: a status, and scores or a reason."""

from __future__ import annotations

from dataclasses import dataclass, replace

from udfs.processes import row_supervisor
from udfs.scoring import readout
from udfs.scoring.readout import Distributions

OK = "ok"
CAPTION_TRUNCATED = "caption_truncated"  # scored, on the caption's beginning
BAD_IMAGE = "bad_image"
EMPTY_CAPTION = "empty_caption"
MODEL_ERROR = "model_error"
DUPLICATE_UID = "duplicate_uid"  # another row with the same uid is scored instead
NULL_UID = "null_uid"
CRASHED = row_supervisor.CRASHED  # it ended the process that scored it
TIMEOUT = row_supervisor.TIMEOUT

Outcome = Distributions | float
"""A model's output for a pair: an MLM's four distributions, or a dual encoder's cosine."""

SCORED = (OK, CAPTION_TRUNCATED)
RETRIED = (BAD_IMAGE, MODEL_ERROR, CRASHED, TIMEOUT)
"""What another try may score."""
STATUSES = (*SCORED, *RETRIED, EMPTY_CAPTION, DUPLICATE_UID, NULL_UID)


@dataclass(frozen=True)
class Scored:
    """The answer for one pair.

    An MLM gives `distributions`, (4, 101) in the order of METRICS; a dual encoder gives
    `clip_score`, the cosine of its two embeddings, -1..1. Both are None if the status says that the
    pair was not scored; then `reason` says why.
    """

    status: str
    reason: str | None
    distributions: Distributions | None = None
    clip_score: float | None = None

    def with_outcome(self, outcome: Outcome | str) -> Scored:
        """This answer with the model's output; or a model error, if `outcome` is its reason."""
        if isinstance(outcome, str):
            return Scored(MODEL_ERROR, outcome)
        if isinstance(outcome, float):
            return replace(self, clip_score=outcome)
        return replace(self, distributions=outcome)

    @property
    def expectation(self) -> list[float] | None:
        """Four scores, 0..100, or None."""
        d = self.distributions
        return None if d is None else [float(x) for x in readout.expectation(d)]

    @property
    def mode(self) -> list[int] | None:
        """Four integers 0..100, or None."""
        d = self.distributions
        return None if d is None else [int(x) for x in readout.mode(d)]

    @property
    def entropy(self) -> list[float] | None:
        """Four entropies in bits, or None."""
        d = self.distributions
        return None if d is None else [float(x) for x in readout.entropy(d)]
