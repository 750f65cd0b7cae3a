"""A lock between processes, for files that are built once on a machine and then shared."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on this file; the file and its folder are created if missing.

    The system releases the lock when the process dies, so no stale lock is ever left. Raises
    OSError if the file cannot be created.
    """
    with _opened(path) as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def lock_or_refuse(path: Path) -> Iterator[None]:
    """The same, but raises BlockingIOError where another process holds the lock."""
    with _opened(path) as handle:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _opened(path: Path) -> TextIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("w")
