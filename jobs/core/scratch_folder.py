"""A scratch folder for each process: removed when the process ends or, if it was killed, at the
next start.

    folder = scratch_folder.of_this_process(Path(tempfile.gettempdir()))
    scratch_folder.remove_abandoned(Path(tempfile.gettempdir()))

A process locks a file in its folder. The system releases the lock when the process dies, so a
folder whose lock is free belongs to nobody.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

PREFIX = "mlm-filter-"
LOCK_FILE = "scratch.lock"

_folders: dict[Path, tuple[Path, int]] = {}
"""Parent folder -> this process's folder in it, and the descriptor that holds the lock."""


def of_this_process(parent: Path) -> Path:
    """This process's scratch folder in `parent`, made at the first call.

    Raises OSError if it cannot be made.
    """
    if parent not in _folders:
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        # Locked before it has its name: a process that starts now does not take the new folder.
        unnamed = folder / f"{LOCK_FILE}.new"
        descriptor = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        unnamed.rename(folder / LOCK_FILE)
        _folders[parent] = folder, descriptor
    return _folders[parent][0]


def remove_abandoned(parent: Path) -> None:
    """Remove the scratch folders in `parent` that processes of this user left when they died.

    Folders without a lock file are not touched, nor links; what cannot be removed stays.
    """
    with suppress(OSError):
        for folder in [path for path in parent.iterdir() if path.name.startswith(PREFIX)]:
            with suppress(OSError):
                if folder.lstat().st_uid == os.getuid() and not folder.is_symlink():
                    _remove_if_unlocked(folder)


def _remove_if_unlocked(folder: Path) -> None:
    lock_file = folder / LOCK_FILE
    descriptor = os.open(lock_file, os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another process may have removed it since, and a third have made one of this name.
        if os.path.samestat(os.fstat(descriptor), lock_file.stat()):
            _remove(folder)
    finally:
        os.close(descriptor)


def _remove(folder: Path) -> None:
    """Remove the lock file last: what a JVM that outlives its driver still adds goes next time."""
    for path in folder.iterdir():
        if path.name == LOCK_FILE:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    (folder / LOCK_FILE).unlink()
    try:
        folder.rmdir()
    except OSError:
        (folder / LOCK_FILE).touch(mode=0o600)


@atexit.register
def _remove_own() -> None:
    for folder, descriptor in _folders.values():
        with suppress(OSError):
            _remove(folder)
        os.close(descriptor)
    _folders.clear()


def _disown() -> None:
    """In a forked child: the folder is its parent's, and so is the lock."""
    for _, descriptor in _folders.values():
        os.close(descriptor)
    _folders.clear()


os.register_at_fork(after_in_child=_disown)
