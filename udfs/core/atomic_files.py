"""Writes a file completely or not at all: under a temporary name beside it, then renamed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL_SUFFIX = ".part"
"""Ends the name of an unfinished file, which begins with a dot so that no reader lists it."""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path to write to; it replaces `path` at the end, or is removed on an error.

    Two tasks may write the same file at once (a retry, a speculative copy): each has its own
    temporary file, and the last one to finish wins.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL_SUFFIX}")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
