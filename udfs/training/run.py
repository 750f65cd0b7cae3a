"""One training from a folder of examples to a model folder: what each process of it runs.

`fit` is what `TorchDistributor` (or the finetune job itself) calls. Only the first process writes;
the folders have to be seen by all of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from udfs.training import adapter, examples, features
from udfs.training.examples import Examples
from udfs.training.recipe import Recipe
from udfs.training.student import Student

HELD_OUT = "held_out"
"""The folder within that of the examples with those that are only for the evaluation."""


MOST_WORKERS = 8
"""More have nothing to do."""


@dataclass(frozen=True)
class Settings:
    """A training, in plain values that can be sent to other processes.

    Attributes:
        examples: folder of examples (`udfs.training.examples`), with `data.json` for the model
            card (`report.py`) and maybe the folder HELD_OUT.
        work: folder for features and checkpoints.
        output: model folder to make.
        base: base model to load, a folder or hub id; `revision` its commit.
        base_name: what the adapter's configuration shall name.
        base_content: hash of the base's content.
        recipe: the Recipe as JSON.
        device: "cpu" or "cuda".
        merge: write a whole model and no adapter.
        compiled: compile the language layers (needs a C++ compiler).
        every_seconds: between checkpoints.
        workers: processes beside each training one that make its steps ready (None: on a GPU one a
            core, at most MOST_WORKERS, and none on a CPU, which has other work).
    """

    examples: str
    work: str
    output: str
    base: str
    base_name: str
    base_content: str
    recipe: str
    revision: str | None = None
    device: str = "cpu"
    merge: bool = False
    compiled: bool = False
    every_seconds: float = 300.0
    workers: int | None = None


def cuda_available() -> bool:
    """Whether this machine has a GPU that torch can use."""
    import torch

    return torch.cuda.is_available()


def fit(settings: Settings) -> dict[str, Any]:
    """Train, evaluate, write the model folder; return what it came to (empty in all processes but
    the first).

    Raises ExamplesError, `checkpoints.CheckpointError`, `images.ImageError`, and ValueError for a
    model that cannot be fine-tuned.
    """
    import torch
    from transformers.utils import logging as transformers_logging

    from udfs.training.train import train

    transformers_logging.disable_progress_bar()
    rank, world = (int(os.environ.get(name, n)) for name, n in (("RANK", 0), ("WORLD_SIZE", 1)))
    say = _say if rank == 0 else _silent
    recipe = Recipe.model_validate_json(settings.recipe)
    device = settings.device
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
        # Matrix products of float32 in TF32: several times as fast, and as exact as training needs.
        torch.set_float32_matmul_precision("high")
    student = adapter.student(settings.base, recipe, device, settings.revision)
    data = examples.read(settings.examples)
    key = _key(settings, data, world)
    work, started = Path(settings.work), time.monotonic()
    _prepare(student, data, work, key, rank, say)
    vision = features.cached(work, student, data.images)
    if settings.compiled:
        _compile(student)
    history = train(
        student,
        data,
        vision,
        recipe,
        work / "checkpoints",
        fingerprint=key,
        every_seconds=settings.every_seconds,
        progress=say,
        workers=_workers(settings, world),
    )
    if rank:
        return {}
    seconds = time.monotonic() - started
    return _finish(settings, student, data, history.steps, {"processes": world, "seconds": seconds})


def _workers(settings: Settings, world: int) -> int:
    if settings.workers is not None:
        return settings.workers
    here = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    spare = (os.cpu_count() or 1) // here - 1
    return max(0, min(MOST_WORKERS, spare)) if settings.device == "cuda" else 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _silent(text: str) -> None:
    pass


def _key(settings: Settings, data: Examples, world: int) -> str:
    """Stands for everything that decides the learned weights, but for the machine."""
    parts = (settings.base_content, settings.recipe, examples.fingerprint(data), str(world))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _prepare(
    student: Student, data: Examples, work: Path, key: str, rank: int, say: Callable[[str], None]
) -> None:
    """Compute what is frozen once, in the first process; the others wait, without a process group
    whose patience would run out."""
    ready = work / f"ready-{key[:16]}"
    if rank == 0:
        features.cached(work, student, data.images, say)
        ready.touch()
    while not ready.is_file():
        time.sleep(1)


def _compile(student: Student) -> None:
    """Compile the language layers, once for all shapes: each fixed one would take as long again."""
    for layer in student.core.language_model.layers:
        layer.compile(dynamic=True)


def _finish(
    settings: Settings,
    student: Student,
    data: Examples,
    history: list[dict[str, Any]],
    took: dict[str, float],
) -> dict[str, Any]:
    """Save, score the held-out pairs with what was saved, write the model card; the folder appears
    whole."""
    from udfs.models import mlm
    from udfs.models.model_config import ModelConfig
    from udfs.training import held_out, report

    output = Path(settings.output)
    scratch = output.with_name(f".{output.name}.new")
    shutil.rmtree(scratch, ignore_errors=True)
    adapter.save(student, scratch, settings.base_name, settings.revision)
    if settings.merge and student.recipe.lora is not None:
        whole = output.with_name(f".{output.name}.merged")
        shutil.rmtree(whole, ignore_errors=True)
        adapter.merge_folder(settings.base, scratch, whole, settings.revision)
        shutil.rmtree(scratch)
        whole.rename(scratch)
    evaluation, matching = list[dict[str, Any]](), dict[str, Any]()
    held = Path(settings.examples) / HELD_OUT
    if held.is_dir():
        unseen = examples.read(held)
        scorer = mlm.load(ModelConfig(str(scratch)), str(student.model.device))
        evaluation = held_out.agreements(scorer, unseen, _say)
        matching = held_out.matching(scorer, unseen, _say)
    data_file = Path(settings.examples) / "data.json"
    told = report.Report(
        recipe=student.recipe,
        base=settings.base_name,
        merged=settings.merge,
        data=json.loads(data_file.read_text()) if data_file.is_file() else {},
        examples=data,
        history=history,
        evaluation=evaluation,
        matching=matching,
        trained=sum(weight.numel() for weight in student.trained),
        took=took,
    )
    report.write(scratch, told)
    scratch.rename(output)
    return {
        "output": str(output),
        "evaluation": evaluation,
        "matching": matching,
        "losses": report.first_and_last(told),
    }
