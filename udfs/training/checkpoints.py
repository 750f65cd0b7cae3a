"""Checkpoints as the trainer writes them: which one a killed training goes on from."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path

CHECKPOINTS = "checkpoints"
"""The folder within the work folder."""
COMPLETE = "complete"
"""A file in each checkpoint, written last: without it, the process died while it saved."""
IDENTITY = "identity.txt"
"""A file beside the checkpoints: a hash of what is trained on what."""


class TrainingError(ValueError):
    """The training cannot begin or go on; one sentence says why."""


def last_checkpoint(work: Path, identity: str) -> str | None:
    """The newest whole checkpoint of the training with this identity, if there is one.

    What a killed process left half written goes. Raises TrainingError for checkpoints of another
    training and for a damaged one.
    """
    import safetensors

    folder, first = work / CHECKPOINTS, int(os.environ.get("RANK", 0)) == 0
    folder.mkdir(parents=True, exist_ok=True)
    known = folder / IDENTITY
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]))
    whole = [path for path in found if (path / COMPLETE).is_file()]
    if whole and (not known.is_file() or known.read_text() != identity):
        raise TrainingError(
            f"{folder} holds checkpoints of another training (other data, settings or base model):"
            " remove the folder, or give --work another one"
        )
    if first:
        known.write_text(identity)
        for path in set(found) - set(whole):
            shutil.rmtree(path)
    if not whole:
        return None
    for file in (file for path in whole for file in path.iterdir()):
        try:
            if file.suffix == ".json":
                json.loads(file.read_text("utf-8"))
            elif file.suffix == ".safetensors":
                with safetensors.safe_open(file, "pt") as weights:
                    weights.keys()
            elif file.suffix in (".pt", ".pth") and not zipfile.is_zipfile(file):
                raise ValueError("it is cut off")
        except (OSError, ValueError, safetensors.SafetensorError) as error:
            raise TrainingError(f"{file} is damaged ({error}): remove {file.parent}") from error
    return str(whole[-1])
