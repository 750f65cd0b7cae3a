"""Checkpoints: learned weights, optimizer and history, so that a killed training goes on as it was.

    checkpoint-<stage>-<step>/    weights.safetensors, optimizer.pt, state.json
    end-<stage>-<fingerprint>.safetensors

The newest checkpoint counts, and others are removed once it is whole. Where a recipe averages, the
weights at the ends of its last stages are kept as well.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from udfs.training.student import Student


class CheckpointError(RuntimeError):
    """A checkpoint was made by another training than the one that would go on from it."""


def save(
    folder: Path,
    student: Student,
    optimizer: Any,
    stage: int,
    step: int,
    history: list[dict[str, Any]],
    fingerprint: str,
) -> None:
    """Write a checkpoint beside the old one, then swap: a kill leaves one of the two whole.

    `stage` and `step` say what comes next; `fingerprint` what the training is made of.
    """
    import torch
    from safetensors.torch import save_file

    final = folder / f"checkpoint-{stage}-{step:07}"
    if final.exists():
        return
    scratch = folder / f"new-{stage}-{step}"
    shutil.rmtree(scratch, ignore_errors=True)  # a save that was killed leaves one
    scratch.mkdir(parents=True)
    save_file(_weights(student), scratch / "weights.safetensors")
    torch.save(optimizer.state_dict(), scratch / "optimizer.pt")
    state = {"stage": stage, "step": step, "fingerprint": fingerprint, "history": history}
    (scratch / "state.json").write_text(json.dumps(state))
    scratch.rename(final)
    for old in _found(folder)[:-1]:
        shutil.rmtree(old)


def load(folder: Path, student: Student, fingerprint: str) -> dict[str, Any] | None:
    """Restore the newest checkpoint's weights; return its state (`stage`, `step`, `history`,
    `optimizer`), or None without one. Raises CheckpointError if it is another training's."""
    import torch
    from safetensors.torch import load_file

    found = _found(folder)
    if not found:
        return None
    state: dict[str, Any] = json.loads((found[-1] / "state.json").read_text())
    if state.get("fingerprint", "") != fingerprint:
        raise CheckpointError(
            f"{found[-1]} is of a training with another recipe, base model or other examples:"
            " remove it to begin anew, or train in another folder"
        )
    state["optimizer"] = torch.load(found[-1] / "optimizer.pt", weights_only=True)
    _give(student, load_file(found[-1] / "weights.safetensors"))
    return state


def save_end(folder: Path, student: Student, stage: int, fingerprint: str) -> None:
    """Keep the weights that a stage ends with; before its last checkpoint, which vouches for
    them."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    file = _end(folder, stage, fingerprint)
    scratch = file.with_suffix(".tmp")
    save_file(_weights(student), scratch)
    scratch.rename(file)


def average_ends(folder: Path, student: Student, stages: Sequence[int], fingerprint: str) -> None:
    """Give the student the mean of the weights that these stages ended with."""
    import torch
    from safetensors.torch import load_file

    ends = [load_file(_end(folder, stage, fingerprint)) for stage in stages]
    mean = {n: torch.stack([end[n].double() for end in ends]).mean(dim=0) for n in ends[0]}
    _give(student, mean)


def _end(folder: Path, stage: int, fingerprint: str) -> Path:
    return folder / f"end-{stage}-{fingerprint[:8]}.safetensors"


def _found(folder: Path) -> list[Path]:
    """All checkpoints, the newest last."""

    def age(path: Path) -> tuple[int, ...]:
        return tuple(int(part) for part in path.name.split("-")[1:])

    return sorted(folder.glob("checkpoint-*-*"), key=age)


def _weights(student: Student) -> dict[str, Any]:
    trained = {id(weight) for weight in student.trained}  # also what a stage has frozen
    return {
        name: weight.detach().cpu().contiguous()
        for name, weight in student.model.named_parameters()
        if id(weight) in trained
    }


def _give(student: Student, weights: dict[str, Any]) -> None:
    """Let the student's weights of these names be these."""
    import torch

    own = dict(student.model.named_parameters())
    with torch.no_grad():
        for name, value in weights.items():
            own[name].copy_(value)
