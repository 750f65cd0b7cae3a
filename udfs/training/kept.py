"""Arrays that take long to make and are kept in a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def kept(file: Path, make: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
    """What `file` holds, or else what `make` returns, which `file` then holds: whole or not at all,
    whenever the process is killed."""
    if file.is_file():
        found: NDArray[np.float32] = np.load(file)
        return found
    made = make()
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_suffix(".tmp.npy")
    np.save(scratch, made)
    scratch.rename(file)
    return made
