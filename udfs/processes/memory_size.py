"""The memory of the machine, and of a process."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = ("memory.max", "memory/memory.limit_in_bytes")  # version 2, version 1


def machine_memory() -> int:
    """Bytes of memory that this machine has, or that its container may use."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in _CGROUP:
        try:
            sizes.append(int(Path("/sys/fs/cgroup", name).read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return min(sizes)


def private_memory(pid: int) -> int | None:
    """Bytes in memory that belong to a process alone; None where the system does not tell.

    Without pages of files: weights that are mapped come in while the model runs, and go.
    """
    try:
        _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
    except (OSError, ValueError):
        return None
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


def in_words(size: int) -> str:
    """A number of bytes for people."""
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size >> 20} MiB"
