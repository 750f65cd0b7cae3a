"""The training loop: stages of steps, checkpoints, resume.

A step is a pure function of the recipe, the examples and the weights so far: what it sees and any
dropout derive from (seed, stage, step). A checkpoint holds the learned weights and the optimizer,
so a training that was killed at any step ends like one that was not.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from udfs.training import checkpoints as saved_states
from udfs.training import features as frozen
from udfs.training import sampling
from udfs.training.examples import Examples
from udfs.training.objective import Objective
from udfs.training.recipe import Recipe, Stage, Weights
from udfs.training.step_plans import Planner
from udfs.training.step_prefetch import feed
from udfs.training.student import PROJECTOR, Student

log = logging.getLogger(__name__)
LEAST_RATE = 0.05
"""The cosine ends at this share of the learning rate."""


@dataclass
class History:
    """What a training has been through: one entry a step."""

    steps: list[dict[str, Any]] = field(default_factory=list)


def train(
    student: Student,
    examples: Examples,
    features: Any,
    recipe: Recipe,
    checkpoints: Path,
    *,
    fingerprint: str = "",
    every_seconds: float = 300,
    progress: Callable[[str], None] = log.info,
    stop_after: int | None = None,
    workers: int = 0,
) -> History:
    """Run all stages from the newest checkpoint in `checkpoints`; return the history.

    `fingerprint` stands for everything that decides the result: a checkpoint with another one is
    refused. Every process of a distributed training calls this; the first one writes and its losses
    are the history's. `stop_after` ends the process's work after so many steps, as a kill would,
    for tests. `workers` processes make steps ready ahead of time (`step_prefetch.py`).

    Raises `checkpoints.CheckpointError`, and ExamplesError where a stage lacks what it needs.
    """
    import torch
    from accelerate import Accelerator, DistributedDataParallelKwargs

    accelerator = Accelerator(
        mixed_precision="bf16" if recipe.dtype == "bfloat16" else "no",
        cpu=student.model.device.type == "cpu",
        # A stage with frozen layers has no gradient for some weights.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )
    near = _nearest(features) if any(s.weights.rank for s in recipe.stages) else None
    planner = Planner(examples, recipe, near)
    objective = Objective(student, examples, features, recipe)
    wrapped = accelerator.prepare_model(objective)
    history = History()
    state = saved_states.load(checkpoints, student, fingerprint)
    first_stage, first_step = 0, 0
    if state:
        first_stage, first_step = state["stage"], state["step"]
        history.steps = state["history"]
        progress(f"going on from step {first_step} of stage {first_stage + 1}")
    averaged = recipe.averages()

    def average(end: int, count: int) -> None:
        if count > 1:
            accelerator.wait_for_everyone()  # for the first one's files
            saved_states.average_ends(checkpoints, student, range(end - count, end), fingerprint)

    def keep(number: int, step: int, optimizer: torch.optim.Optimizer) -> None:
        if not accelerator.is_main_process:
            return
        ended = step == recipe.stages[number].steps
        if ended and number in averaged:
            saved_states.save_end(checkpoints, student, number, fingerprint)
        place = (number + 1, 0) if ended else (number, step)
        saved_states.save(checkpoints, student, optimizer, *place, history.steps, fingerprint)

    saved, done = time.monotonic(), 0
    for number, stage in enumerate(recipe.stages):
        if number < first_stage:
            continue
        begin = first_step if number == first_stage else 0
        if not begin:
            average(number, stage.averaged)
        optimizer = torch.optim.AdamW(
            _groups(student, stage), lr=stage.learning_rate, weight_decay=recipe.weight_decay
        )
        if state and number == first_stage and begin:
            optimizer.load_state_dict(state["optimizer"])
        turns = [
            turn * accelerator.num_processes + accelerator.process_index
            for turn in range(begin * recipe.accumulate, stage.steps * recipe.accumulate)
        ]
        batches = feed(objective, planner, stage, turns, workers)
        started = time.monotonic()
        for step in range(begin, stage.steps):
            for group in optimizer.param_groups:
                group["lr"] = group["rate"] * _schedule(step, stage)
            entry: dict[str, Any] = {"stage": stage.name, "step": step}
            optimizer.zero_grad()
            for micro in range(recipe.accumulate):
                prepared = next(batches)
                torch.manual_seed(_seed(recipe, stage, prepared.plan.turn))
                last = micro == recipe.accumulate - 1
                with _sync(accelerator, wrapped, last), accelerator.autocast():
                    found = wrapped(prepared, stage)
                weights = stage.weights.model_dump()
                loss = sum(weights[name] * value for name, value in found.items())
                accelerator.backward(loss / recipe.accumulate)
                for name, value in found.items():
                    entry[name] = entry.get(name, 0.0) + float(value.detach()) / recipe.accumulate
            norm = torch.nn.utils.clip_grad_norm_(student.trained, recipe.max_gradient)
            optimizer.step()
            entry["norm"] = float(norm)
            entry["seconds"] = round(time.monotonic() - started, 1)
            history.steps.append(entry)
            done += 1
            if step % 10 == 9 or step == stage.steps - 1:
                progress(_line(history, stage, step, begin, started))
            over = stop_after is not None and done >= stop_after
            due = time.monotonic() - saved > every_seconds and not over
            if due or step == stage.steps - 1:
                keep(number, step + 1, optimizer)
                saved = time.monotonic()
            if over:
                return history
    average(len(recipe.stages), recipe.averaged)
    return history


def _seed(recipe: Recipe, stage: Stage, turn: int) -> int:
    """Of what chance there is within a step: dropout."""
    return int(sampling.rng(recipe.seed, stage.name, turn).integers(2**31))


def _sync(accelerator: Any, wrapped: Any, last: bool) -> Any:
    """Between processes gradients are summed once a step, at its last micro-batch."""
    import contextlib

    return contextlib.nullcontext() if last else accelerator.no_sync(wrapped)


def _groups(student: Student, stage: Stage) -> list[dict[str, Any]]:
    """Parameter groups: the projector, and the rest."""
    learning = student.learning(stage.frozen_layers)
    known = {id(weight) for name, weight in student.model.named_parameters() if PROJECTOR in name}
    projector = [weight for weight in learning if id(weight) in known]
    rest = [weight for weight in learning if id(weight) not in known]
    groups = [
        {"params": projector, "rate": stage.projector_rate or stage.learning_rate},
        {"params": rest, "rate": stage.learning_rate},
    ]
    return [group for group in groups if group["params"]]


def _schedule(step: int, stage: Stage) -> float:
    """Share of the learning rate: linear warm-up, then a cosine (the paper's schedule)."""
    warm = max(1, round(stage.warmup * stage.steps))
    if step < warm:
        return (step + 1) / warm
    done = (step - warm) / max(1, stage.steps - warm)
    return LEAST_RATE + (1 - LEAST_RATE) * (1 + math.cos(math.pi * done)) / 2


def _nearest(features: Any, count: int = sampling.LOOKALIKES[1]) -> Any:
    """For each image the nearest others by the cosine of their mean features, (N, K)."""
    mean = frozen.means(features)
    mean -= mean.mean(axis=0)
    mean /= np.linalg.norm(mean, axis=1, keepdims=True) + 1e-6
    rows = []
    for start in range(0, len(mean), 1024):
        similarity = mean[start : start + 1024] @ mean.T
        rows.append(np.argsort(-similarity, axis=1, kind="stable")[:, : count + 1])
    return np.concatenate(rows)[:, 1:]


def _line(history: History, stage: Stage, step: int, begin: int, started: float) -> str:
    last = history.steps[-10:]
    names = [n for n in Weights.model_fields if n in last[-1]]
    shown = " ".join(f"{n} {np.mean([e[n] for e in last if n in e]):.3f}" for n in names)
    rate = (time.monotonic() - started) / (step + 1 - begin)
    left = rate * (stage.steps - step - 1)
    return (
        f"{stage.name} {step + 1}/{stage.steps}: {shown}; {rate:.1f} s/step,"
        f" {left / 60:.0f} min left in this stage"
    )
