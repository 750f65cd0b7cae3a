"""Runs a job as a program: settings, Spark session, errors, one line of JSON at the end."""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from udfs.core.visible_text import visible

from .errors import UsageError, first_line
from .settings import C, parse

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
"""Exit codes."""

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
    except KeyboardInterrupt:
        code, outcome = INTERRUPTED, {"error": "interrupted"}
        say(f"mlm-filter {name}: interrupted")
    except UsageError as error:
        code, outcome = USAGE, {"error": str(error)}
        first, *others = error.lines
        say(f"mlm-filter {name}: {first}", *others)
    except Exception as error:
        code, outcome = _failure(error)
        say(f"mlm-filter {name}: {outcome['error']}")
        if debug:
            say(*traceback.format_exc().splitlines())
        elif code == FAILED:
            say("(--debug prints the full traceback)")
    finally:
        if spark is not None and created:
            spark.stop()
    status = {OK: "ok", USAGE: "usage_error"}.get(code, "failed")
    seconds = round(time.monotonic() - started, 1)
    line = {"job": name, "status": status, "run_id": new_run_id()} | outcome | {"seconds": seconds}
    print(json.dumps(_as_json(line)), flush=True)
    return code


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
    condition = getattr(error, "getCondition", lambda: None)() or ""
    model = re.search(r"^udfs\.models\.model_config\.ModelError: (.+)$", str(error), re.MULTILINE)
    if model:  # raised in a Python worker: which model, and why it cannot be used
        return USAGE, {"error": model[1]}
    code = USAGE if condition.startswith(_NOT_FOUND) else FAILED
    return code, {"error": first_line(error)}


def _as_json(value: Any) -> Any:
    """`value` as JSON can hold it: no NaN or infinity, no types of Spark, numpy or pydantic."""
    if isinstance(value, dict):
        return {str(key): _as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_as_json(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
