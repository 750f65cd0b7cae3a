"""The runs table: one row for each run of a job that writes scores."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pyspark.sql import SparkSession

from .. import __version__
from ..core.settings import JobConfig
from . import delta

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
    delta.create(spark, ref, delta.RUNS)
    values = tuple(row.get(field.name) for field in delta.RUNS)
    delta.append(spark.createDataFrame([values], delta.RUNS), ref, f"run-{run_id}", 0)


def versions() -> dict[str, str]:
    """Versions of this program and of the libraries on which its results depend."""
    found = {"mlm-filter": __version__}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
