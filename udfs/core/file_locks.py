"""A lock between processes, for what is made once on a machine and then used by all."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the lock of this file, which is made where it is missing, as is its folder.

    The system drops the lock when its holder dies, so there is no stale lock to clean up. Raises
    OSError where the file cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
