"""Keep a scores table in shape, and the runs table beside it.

    mlm-filter maintain --scores SCORES [--retain-hours 168] [--dry-run]

Adds what later versions added (columns, comments, constraints on the scores' ranges), puts many
small files together, ordered by uid, and deletes files that the table no longer uses: old versions
of its rows, and what killed runs left. Run again, it changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Self

from pydantic import Field, model_validator
from pyspark.errors import AnalysisException
from pyspark.sql import SparkSession

from ..core import job_runner
from ..core.errors import UsageError
from ..core.job_runner import say
from ..core.session import session_settings
from ..core.settings import JobConfig
from ..tables import delta, runs, scores
from .table_changes import Change, check_ranges, details, pending

SAFE_HOURS = 168
"""Delta's own limit: no run takes that long from writing a file to committing it."""


class MaintainConfig(JobConfig):
    """Add columns and constraints to a scores table, compact its files, delete unused ones."""

    scores: str = Field(description="scores table; SCORES_runs is compacted too")
    retain_hours: int = Field(
        SAFE_HOURS,
        ge=0,
        description="keep unused files this long; below 168 no run may be writing meanwhile",
    )

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        if self.limit is not None:
            raise UsageError("maintain takes no --limit: it works on the whole table")
        return self


def run(spark: SparkSession, config: MaintainConfig) -> dict[str, Any]:
    """Maintain the tables; return what was done. Raises UsageError if scores are out of range."""
    if missing := scores.missing(delta.read(spark, config.scores).columns):
        raise UsageError(f"{config.scores} is not a scores table: it lacks {', '.join(missing)}")
    check_ranges(spark, config.scores)
    if config.retain_hours < SAFE_HOURS:
        say(
            f"note: with --retain-hours {config.retain_hours} no run may be writing to the table:"
            " files that it has not committed yet may be deleted"
        )
    added = _add_what_is_missing(spark, config)
    summary = {"scores": config.scores, "added": added, **_tidy(spark, config.scores, config)}
    runs_table = runs.ref_beside(config.scores)
    if delta.exists(spark, runs_table):
        summary["runs"] = {"table": runs_table, **_tidy(spark, runs_table, config)}
    return summary | ({"dry_run": True} if config.dry_run else {})


def _add_what_is_missing(spark: SparkSession, config: MaintainConfig) -> list[str]:
    changes = pending(spark, config.scores)
    for change in changes:
        if not config.dry_run:
            delta.repeat_on_conflict(config.scores, partial(_apply, spark, config.scores, change))
        say(f"{config.scores}: {'would add' if config.dry_run else 'added'} {change.adds}")
    return [change.adds for change in changes]


def _apply(spark: SparkSession, ref: str, change: Change) -> None:
    try:
        _execute(spark, change.sql)
    except AnalysisException:
        if change in pending(spark, ref):  # else another run was faster
            raise


def _execute(spark: SparkSession, sql: str) -> None:
    spark.sql(sql).collect()


def _tidy(spark: SparkSession, ref: str, config: MaintainConfig) -> dict[str, Any]:
    """Compact the files of a table and delete the unused ones; return and print the numbers."""
    before = details(spark, ref)
    if config.dry_run:
        unused = _unused_files(spark, ref, config.retain_hours)
        say(
            f"{ref}: would compact {_size(before)}, and remove {unused:,} files that are unused"
            f" for {config.retain_hours} hours"
        )
        return {
            "files_before": before["numFiles"],
            "bytes_before": before["sizeInBytes"],
            "files_to_remove": unused,
        }
    optimize = f"OPTIMIZE {delta.sql_name(ref)}"
    delta.repeat_on_conflict(ref, lambda: _execute(spark, optimize))
    removed = delta.repeat_on_conflict(ref, lambda: _vacuum(spark, ref, config.retain_hours))
    after = details(spark, ref)
    say(f"{ref}: {_size(before)} before, {_size(after)} now; {removed:,} unused files removed")
    return {
        "files_before": before["numFiles"],
        "files_after": after["numFiles"],
        "bytes_before": before["sizeInBytes"],
        "bytes_after": after["sizeInBytes"],
        "files_removed": removed,
    }


def _vacuum(spark: SparkSession, ref: str, hours: int) -> int:
    """Delete files unused for so many hours; return how many."""
    files = _unused_files(spark, ref, hours)
    if files:  # otherwise VACUUM would still add two versions to the table's history
        with _retention(spark, hours):
            _execute(spark, f"VACUUM {delta.sql_name(ref)} RETAIN {hours} HOURS")
    return files


def _unused_files(spark: SparkSession, ref: str, hours: int) -> int:
    with _retention(spark, hours):
        return spark.sql(f"VACUUM {delta.sql_name(ref)} RETAIN {hours} HOURS DRY RUN").count()


def _retention(spark: SparkSession, hours: int) -> Any:
    # Delta 4.4 ignores RETAIN, unless it is 0, for the table's own retention. No error says so.
    settings = {"spark.databricks.delta.vacuum.retentionWindowIgnore.enabled": "false"}
    if hours < SAFE_HOURS:
        settings["spark.databricks.delta.retentionDurationCheck.enabled"] = "false"
    return session_settings(spark, settings)


def _size(detail: Any) -> str:
    return f"{detail['numFiles']:,} files ({detail['sizeInBytes'] / 1e6:,.1f} MB)"


def main(argv: Sequence[str] | None = None) -> int:
    """Run as a program; returns the exit code."""
    return job_runner.main("maintain", MaintainConfig, run, argv)
