"""Steps made ready ahead of time, beside the one that is computed.

To draw captions, spoil them and lay them out is plain Python, and takes a good part of the time
that a GPU needs for the step itself: processes beside the training do it meanwhile. What they make
is a pure function of the turn, so their number changes nothing of what is learned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch.utils.data import DataLoader, Dataset  # noqa: TID253 - as in objective.py

from udfs.training.objective import Objective, Prepared
from udfs.training.recipe import Stage
from udfs.training.step_plans import Planner

AHEAD = 4
"""So many steps each process makes beforehand."""


class _Turns(Dataset[Prepared]):
    def __init__(
        self, objective: Objective, planner: Planner, stage: Stage, turns: Sequence[int]
    ) -> None:
        self._objective, self._planner, self._stage = objective, planner, stage
        self._turns = turns

    def __len__(self) -> int:
        return len(self._turns)

    def __getitem__(self, at: int) -> Prepared:
        plan = self._planner.plan(self._stage, self._turns[at])
        return self._objective.prepare(plan, self._stage)


def feed(
    objective: Objective, planner: Planner, stage: Stage, turns: Sequence[int], workers: int
) -> Iterator[Prepared]:
    """The micro-batches of these turns, in order, made by so many processes (0: here, each when it
    is asked for)."""
    loader: DataLoader[Prepared] = DataLoader(
        _Turns(objective, planner, stage, turns),
        batch_size=None,  # a micro-batch each
        collate_fn=_as_it_is,
        num_workers=workers,
        prefetch_factor=AHEAD if workers else None,
        multiprocessing_context="fork" if workers else None,
    )
    yield from loader


def _as_it_is(prepared: Any) -> Any:
    return prepared
