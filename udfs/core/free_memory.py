"""Gives memory back to the system."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable


def release_free_memory() -> None:
    """Return what this process has freed; else glibc keeps the most that a picture ever took, once
    for each thread."""
    _trim()(0)


@functools.cache
def _trim() -> Callable[[int], object]:
    try:
        trim: Callable[[int], object] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # another C library, which has nothing of the kind
        return lambda _: None
    return trim
