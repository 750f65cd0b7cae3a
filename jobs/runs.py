"""The runs table: one row for each run of a job that writes scores."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pyspark.sql import SparkSession

from . import __version__, tables
from .config import JobConfig

_LIBRARIES = ("pyspark", "delta-spark", "torch", "transformers", "pillow")


def ref_beside(table: str) -> str:
    """The runs table that belongs to `table`: its reference with `_runs` behind it."""
    return f"{table.rstrip('/')}_runs"


def record(
    spark: SparkSession,
    ref: str,
    run_id: str,
    job: str,
    config: JobConfig,
    started: datetime,
    **found: Any,
) -> None:
    """Append one row; `found` holds the other columns of `tables.RUNS`."""
    row = {
        "run_id": run_id,
        "job": job,
        "status": "ok",
        "started_at": started,
        "seconds": (datetime.now(UTC) - started).total_seconds(),
        "parameters": json.dumps(config.model_dump(mode="json")),
        "versions": versions(),
        **found,
    }
    tables.create(spark, ref, tables.RUNS)
    values = tuple(row.get(field.name) for field in tables.RUNS)
    tables.append(spark.createDataFrame([values], tables.RUNS), ref, f"run-{run_id}", 0)


def versions() -> dict[str, str]:
    """Versions of this program and of the libraries on which its results depend."""
    found = {"mlm-filter": __version__}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
