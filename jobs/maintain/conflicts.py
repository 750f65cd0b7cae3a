"""Tries again what failed because another run changed the table at the same time."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TypeVar

from ..core.job_runner import say

R = TypeVar("R")

WAITS = (2.0, 5.0, 15.0)
"""Seconds before each further try."""

# In the text, because PySpark passes most of them on without their condition.
_CONFLICT = re.compile(r"\bDELTA_(CONCURRENT_\w+|METADATA_CHANGED|PROTOCOL_CHANGED)\b")


def is_conflict(error: Exception) -> bool:
    """Whether Delta refused a commit because of another one since the work began."""
    return _CONFLICT.search(str(error)) is not None


def retried(work: Callable[[], R]) -> R:
    """The result of `work`, tried again after each conflict; at last raises Delta's error."""
    for seconds in WAITS:
        try:
            return work()
        except Exception as error:
            if not is_conflict(error):
                raise
        say(f"another run wrote to the table; trying again in {seconds:g} s ...")
        time.sleep(seconds)
    return work()
