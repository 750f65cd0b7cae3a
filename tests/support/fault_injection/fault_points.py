"""Runs a job that meets a fault at a given point: `python -m ... POINT score --pairs P`.

The point is one of POINTS. There the driver kills itself, or (with `:pause`) makes the file
$FAULT_REACHED and waits for $FAULT_GO, while the test does what it likes.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobs import cli
from jobs.score import pending_rows, slices
from jobs.tables import delta

Act = Callable[[], None]


def _before(owner: Any, name: str, act: Act, call: int = 1, matches: str = "") -> None:
    """Act before the given call of a function of which an argument begins with `matches`."""
    original, calls = getattr(owner, name), [0]

    def wrapped(*arguments: Any, **options: Any) -> Any:
        if not matches or any(str(argument).startswith(matches) for argument in arguments):
            calls[0] += 1
            if calls[0] == call:
                act()
        return original(*arguments, **options)

    setattr(owner, name, wrapped)


def _after(owner: Any, name: str, act: Act, call: int, matches: str) -> None:
    """Act after the given call of a function of which an argument begins with `matches`."""
    original, calls = getattr(owner, name), [0]

    def wrapped(*arguments: Any, **options: Any) -> Any:
        result = original(*arguments, **options)
        if any(str(argument).startswith(matches) for argument in arguments):
            calls[0] += 1
            if calls[0] == call:
                act()
        return result

    setattr(owner, name, wrapped)


def _during(owner: Any, name: str, act: Act, call: int, seconds: float) -> None:
    """Act some time after the given call of a function began."""
    _before(owner, name, lambda: threading.Timer(seconds, act).start(), call)


POINTS: dict[str, Callable[[Act], None]] = {
    "plan": lambda act: _before(pending_rows, "number_copies", act),
    "loading": lambda act: _during(slices, "_computed", act, 1, 0.1),
    "slice": lambda act: _during(slices, "_computed", act, 3, 0.1),
    "between_slices": lambda act: _before(slices, "_computed", act, 3),
    # The first announces the run, the second is that of the first slice.
    "committed": lambda act: _after(delta, "append", act, 3, "score-"),
    "recording": lambda act: _before(delta, "append", act, 1, "run-"),
}


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _pause() -> None:
    Path(os.environ["FAULT_REACHED"]).touch()
    while not Path(os.environ["FAULT_GO"]).exists():
        time.sleep(0.01)


if __name__ == "__main__":
    point, *arguments = sys.argv[1:]
    name, _, action = point.partition(":")
    if name != "none":
        POINTS[name](_pause if action == "pause" else _kill)
    sys.exit(cli.main(arguments))
