"""A lock between processes, for files that are built once on a machine and then shared."""

from __future__ import annotations

import fcntl
import os
import tempfile
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


@contextmanager
def machine_lock(name: str) -> Iterator[None]:
    """Hold a lock of this user's processes on this machine; none where there is no folder for it.

    It spares memory and decides nothing: what it guards is right without it too.
    """
    folder = Path(tempfile.gettempdir(), f"mlm-filter-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid != os.getuid():  # another user's, who may have put links there
            raise PermissionError(folder)
        handle = _opened(folder / f"{name}.lock")
    except OSError:
        yield
        return
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _opened(path: Path) -> TextIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("w")
