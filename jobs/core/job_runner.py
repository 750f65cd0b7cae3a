"""Runs a job as a program: settings, Spark session, errors, one line of JSON at the end."""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from udfs.core.visible_text import visible

from .errors import UsageError, first_line
from .settings import C, parse

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

OK, FAILED, USAGE, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143
"""Exit codes; the last two as a shell has them for Ctrl-C and SIGTERM."""

STOPPED = "what is written stays; the same command again does the rest"
JVM_GONE = "the Java process has ended (killed, or out of memory): " + STOPPED

# Spark's and Delta's error conditions for something that the user named and that does not exist.
_NOT_FOUND = (
    "TABLE_OR_VIEW_NOT_FOUND",
    "PATH_NOT_FOUND",
    "SCHEMA_NOT_FOUND",
    "CATALOG_NOT_FOUND",
    "DELTA_TABLE_NOT_FOUND",
    "DELTA_MISSING_DELTA_TABLE",
    "DELTA_PATH_DOES_NOT_EXIST",
)


def main(
    name: str,
    config_type: type[C],
    body: Callable[[SparkSession, C], dict[str, Any]],
    argv: Sequence[str] | None = None,
) -> int:
    """Run a job as a program and return its exit code: 0, 1 (failed) or 2 (bad usage or input).

    The last line on stdout is JSON: `job`, `status` (ok, failed, usage_error), `run_id`, what
    `body` returns, `seconds`. Everything for people goes to stderr. A session that is active
    already is used and left running.
    """
    started = time.monotonic()
    outcome: dict[str, Any] = {}
    debug = os.environ.get("MLM_FILTER_DEBUG", "") not in ("", "0")
    spark, created = None, False
    code = FAILED
    handlers = _Handlers()
    # A spot instance gets this before it vanishes, a container before it is stopped.
    handlers.set({signal.SIGTERM: _terminate})
    try:
        config = parse(config_type, argv, name)
        if config.debug:
            debug = True
            os.environ["MLM_FILTER_DEBUG"] = "1"
        # Only now: neither --help nor a mistyped option waits for Spark.
        from .session import get_spark

        spark, created = get_spark(f"mlm-filter {name}")
        outcome = body(spark, config)
        code = OK
    except SystemExit as stop:  # --help
        return int(stop.code or 0)
    except (KeyboardInterrupt, _Terminated) as stop:
        code, outcome = _stopped(name, stop)
    except UsageError as error:
        code, outcome = USAGE, {"error": str(error)}
        first, *others = error.lines
        say(f"mlm-filter {name}: {first}", *others)
    except Exception as error:
        if signalled := _stop_behind(error):
            code, outcome = _stopped(name, signalled)
        else:
            code, outcome = _failure(error)
            say(f"mlm-filter {name}: {outcome['error']}")
        if debug:
            say(*traceback.format_exc().splitlines())
        elif code == FAILED:
            say("(--debug prints the full traceback)")
    finally:
        # Whoever presses Ctrl-C again does not want to wait for Spark's end.
        end = partial(_end_at_once, code)
        handlers.set({signal.SIGINT: end, signal.SIGTERM: end})
        if spark is not None and created:
            with suppress(Exception):  # a Java process that is gone cannot be stopped
                spark.stop()
        handlers.restore()
    status = {OK: "ok", USAGE: "usage_error"}.get(code, "failed")
    seconds = round(time.monotonic() - started, 1)
    line = {"job": name, "status": status, "run_id": new_run_id()} | outcome | {"seconds": seconds}
    print(json.dumps(_as_json(line)), flush=True)
    return code


class _Terminated(BaseException):
    """SIGTERM has come."""


def _stop_behind(error: BaseException) -> BaseException | None:
    """The signal during whose handling `error` came: what cleans up may fail in a call to Java, as
    the signal has broken off another one."""
    cause = error.__context__
    while cause is not None and not isinstance(cause, KeyboardInterrupt | _Terminated):
        cause = cause.__context__
    return cause


def _stopped(name: str, stop: BaseException) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON after a signal; prints a line."""
    code = TERMINATED if isinstance(stop, _Terminated) else INTERRUPTED
    what = "terminated" if code == TERMINATED else "interrupted"
    say(f"mlm-filter {name}: {what}; {STOPPED}")
    return code, {"error": what}


def _terminate(*_: object) -> None:
    raise _Terminated


def _end_at_once(code: int, number: int, _: object) -> None:
    os._exit(code or 128 + number)


class _Handlers:
    """Handlers of signals for the time of a run. Only a program's main thread can have some."""

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Any] = {}

    def set(self, handlers: Mapping[signal.Signals, Callable[..., None]]) -> None:
        """Handle signals from now on."""
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                self._before.setdefault(number, signal.getsignal(number))
                signal.signal(number, handler)

    def restore(self) -> None:
        """Handle them as before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)


def say(*lines: str) -> None:
    """Print lines for people, to stderr: stdout is reserved for the line of JSON.

    All that is said of data goes through here: text from it cannot end a line, nor command the
    terminal.
    """
    for line in lines:
        print(visible(line), file=sys.stderr, flush=True)


def new_run_id() -> str:
    """A name for one run of a job that sorts by time, e.g. `20250131T235959Z-5f3a9c21`."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"


def _failure(error: Exception) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON of an unexpected error."""
    if _java_is_gone(error):
        return FAILED, {"error": JVM_GONE}
    condition = getattr(error, "getCondition", lambda: None)() or ""
    model = re.search(r"^udfs\.models\.model_config\.ModelError: (.+)$", str(error), re.MULTILINE)
    if model:  # raised in a Python worker: which model, and why it cannot be used
        return USAGE, {"error": model[1]}
    code = USAGE if condition.startswith(_NOT_FOUND) else FAILED
    return code, {"error": first_line(error)}


def _java_is_gone(error: BaseException) -> bool:
    """Whether this is what py4j raises when nobody answers."""
    return isinstance(error, ConnectionError) or type(error).__name__ == "Py4JNetworkError"


def _as_json(value: Any) -> Any:
    """`value` as JSON can hold it: no NaN or infinity, no types of Spark, numpy or pydantic."""
    if isinstance(value, dict):
        return {str(key): _as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_as_json(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
