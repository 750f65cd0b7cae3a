"""The runs table: one row for each run of a job that writes scores."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pyspark.sql import SparkSession
from pyspark.sql import types as T

from .. import __version__
from ..core.settings import JobConfig
from . import delta
from .delta import described

RUNS = T.StructType(
    [
        described("run_id", T.StringType(), "key of the run"),
        described("job", T.StringType(), "name of the job"),
        described("status", T.StringType(), "ok or failed"),
        described("started_at", T.TimestampType(), "when the run began"),
        described("seconds", T.DoubleType(), "how long the run took"),
        described("parameters", T.StringType(), "the job's settings as JSON"),
        described("inputs", T.MapType(T.StringType(), T.LongType()), "table read -> its version"),
        described(
            "outputs", T.MapType(T.StringType(), T.LongType()), "table written -> its version"
        ),
        described("rows", T.LongType(), "rows that the run handled"),
        described("rows_by_status", T.MapType(T.StringType(), T.LongType()), "status -> rows"),
        described(
            "rows_per_second", T.DoubleType(), "rows per wall-clock second of the work itself"
        ),
        described(
            "seconds_by_stage",
            T.MapType(T.StringType(), T.DoubleType()),
            "where the time of the tasks went, e.g. decode, wait, model; summed over tasks",
        ),
        described("versions", T.MapType(T.StringType(), T.StringType()), "library -> version"),
        described("error", T.StringType(), "why it failed"),
    ]
)
"""The columns of the runs table: one row for each job run."""

_LIBRARIES = ("pyspark", "delta-spark", "torch", "transformers", "pillow")


def ref_beside(table: str) -> str:
    """The reference of the runs table that belongs to `table`: its own with `_runs` appended."""
    return f"{table.rstrip('/')}_runs"


def record(
    spark: SparkSession,
    ref: str,
    run_id: str,
    job: str,
    config: JobConfig,
    started: datetime,
    **columns: Any,
) -> None:
    """Append one row; `columns` are values for the other columns of `RUNS`."""
    row = {
        "run_id": run_id,
        "job": job,
        "status": "ok",
        "started_at": started,
        "seconds": (datetime.now(UTC) - started).total_seconds(),
        "parameters": json.dumps(config.model_dump(mode="json")),
        "versions": versions(),
        **columns,
    }
    delta.create(spark, ref, RUNS)
    values = tuple(row.get(field.name) for field in RUNS)
    delta.append(spark.createDataFrame([values], RUNS), ref, f"run-{run_id}", 0)


def versions() -> dict[str, str]:
    """Versions of this program and of the libraries that its results depend on."""
    by_name = {"mlm-filter": __version__}
    for name in _LIBRARIES:
        try:
            by_name[name] = version(name)
        except PackageNotFoundError:
            continue
    return by_name
