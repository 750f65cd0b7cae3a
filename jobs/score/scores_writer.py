"""Commits slices of scores beside other runs: each row of the pairs once for a scorer.

What other runs of the scorer commit meanwhile is left out of a slice, however late it is noticed;
the model does not run again for it. With each commit goes a note for the other runs: which slice
it has, and which one this run takes next.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from udfs.scoring.results import STATUSES
from udfs.spark import STAGES

from ..core.session import session_settings
from ..tables import delta
from ..tables import scores as scores_table
from ..tables.concurrent_append import Commit, ConcurrentAppender
from .slice_queue import Extent
from .tally import Tally

Counts = dict[str, Any]
"""Of rows: how many there are, by status and of a further attempt; and the seconds by stage."""

_USER_METADATA = "spark.databricks.delta.commitInfo.userMetadata"


class ScoresWriter:
    """Writes the scores of one run of `scorer` into the table `ref`.

    `version` is the version of the table that the run's pending rows come from.
    """

    def __init__(
        self, spark: SparkSession, ref: str, scorer: str, run_id: str, version: int, tally: Tally
    ) -> None:
        self._spark = spark
        self._ref = ref
        self._scorer = scorer
        self._run_id = run_id
        self._tally = tally
        self._appender = ConcurrentAppender(spark, ref, f"score-{scorer}", run_id, version)
        self._by_others: list[tuple[Commit, Extent | None]] = []

    @property
    def has_others(self) -> bool:
        """Whether other runs of this scorer have been seen at work on the table."""
        return any(commit.run_id for commit in self._appender.others)

    def look(self) -> None:
        """See what other runs have committed since the last look or commit."""
        self._appender.look()

    def done_by_others(self) -> list[Extent]:
        """What other runs have committed since this one began, in that order."""
        return [extent for _, extent in self._commits_of_others() if extent]

    def claims(self) -> list[Extent]:
        """The slice that each other run works on, as far as it has said so."""
        said = [c for c in self._appender.others if c.details and "next" in c.details]
        last = {commit.run_id: commit for commit in said}
        upcoming = [_extent(commit, "next") for commit in last.values()]
        return [extent for extent in upcoming if extent]

    def claim(self, choose: Callable[[], Extent | None]) -> bool:
        """Tell the other runs what this one works on, as `choose` says, which may be called again
        when they have told more; return whether it chose anything."""

        def details() -> dict[str, object] | None:
            chosen = choose()
            return None if chosen is None else _note(chosen)

        return self._appender.announce(details)

    def unanswered(self, rows: DataFrame, extent: Extent) -> DataFrame:
        """The rows of a slice that no other run has answered, as far as has been seen."""
        return self._without(rows, self._commits_on(extent))

    def commit(
        self,
        rows: DataFrame,
        counts: Counts,
        extent: Extent,
        choose: Callable[[], Extent | None] = lambda: None,
    ) -> int:
        """Write the finished rows of a slice, persisted, each once; `counts` is `counts_of` them.
        Return how many others had not committed. `choose` as for `claim`.

        Rows of a further attempt replace the earlier answer.
        """
        at = datetime.now(UTC)
        finished = scores_table.with_all_columns(rows, self._scorer, self._run_id, at)
        label: dict[str, object] = {"at": at.isoformat(), "slice": extent.as_json()}
        counts_without = {0: counts}  # by how many commits of others are left out

        def make() -> tuple[DataFrame, dict[str, object]] | None:
            commits = self._commits_on(extent)
            if len(commits) not in counts_without:
                counts_without[len(commits)] = counts_of(self._without(rows, commits))
            chosen = choose()
            if not counts_without[len(commits)]["rows"] and chosen is None:
                return None
            new = self._without(finished, commits).where(F.col("attempts") == 1)
            return new, label | _note(chosen)

        self._appender.append(make)
        commits = self._commits_on(extent)
        counted = counts_without[max(counts_without)]
        if counted["retried"]:
            new = self._without(finished, commits).where(F.col("attempts") > 1)
            self._replace(new, label)
        return self._tally.add(counted)

    def _commits_on(self, extent: Extent) -> list[Commit]:
        """Commits of others that may have answers for rows of the slice."""
        return [
            commit
            for commit, done in self._commits_of_others()
            if commit.details is None or (done and done.overlaps(extent))
        ]

    def _commits_of_others(self) -> list[tuple[Commit, Extent | None]]:
        """Each commit of another writer, with the slice that it has."""
        new = self._appender.others[len(self._by_others) :]
        self._by_others += [(commit, _extent(commit, "slice")) for commit in new]
        return self._by_others

    def _without(self, rows: DataFrame, commits: list[Commit]) -> DataFrame:
        """`rows` without those that these commits have answered."""
        if not commits:
            return rows
        table = delta.read(self._spark, self._ref).where(F.col("scorer") == self._scorer)
        if all(commit.details for commit in commits):  # else a writer of which nothing is known
            by_run: dict[str, list[datetime]] = {}
            for commit in commits:
                assert commit.run_id is not None
                assert commit.details is not None
                at = datetime.fromisoformat(commit.details["at"])
                by_run.setdefault(commit.run_id, []).append(at)
            wanted = F.lit(False)
            for run_id, times in by_run.items():
                wanted |= (F.col("run_id") == run_id) & F.col("scored_at").isin(times)
            table = table.where(wanted)
        answered = table.select(
            *(F.col(key).alias(f"_{key}") for key in scores_table.KEYS),
            F.col("attempts").alias("_attempts"),
        )
        same = [F.col(key).eqNullSafe(F.col(f"_{key}")) for key in scores_table.KEYS]
        # An earlier answer, which a further attempt is to replace, is none.
        return rows.join(answered, [*same, F.col("_attempts") >= F.col("attempts")], "left_anti")

    def _replace(self, rows: DataFrame, label: dict[str, object]) -> None:
        """Put the answers of further attempts in the place of the earlier ones. Whoever is second
        to do so changes nothing."""
        spark = rows.sparkSession  # that of a stream's batches is another one
        view = f"retried_{self._run_id.replace('-', '_')}"
        rows.createOrReplaceTempView(view)
        values = ", ".join(f"{name} = new.{name}" for name in scores_table.SCORES_TABLE.names)
        same = " AND ".join(f"old.{key} <=> new.{key}" for key in scores_table.KEYS)
        merge = (
            f"MERGE INTO {delta.sql_name(self._ref)} AS old USING {view} AS new"
            f" ON old.scorer = '{self._scorer}' AND {same}"
            f" WHEN MATCHED AND old.attempts < new.attempts THEN UPDATE SET {values}"
        )
        try:
            with session_settings(spark, {_USER_METADATA: self._appender.note(label)}):
                delta.repeat_on_conflict(self._ref, lambda: spark.sql(merge).collect())
        finally:
            spark.catalog.dropTempView(view)


def counts_of(rows: DataFrame) -> Counts:
    """Rows, those of a further attempt, rows by status and seconds by stage, in one scan."""
    stages = [name for name in (f"seconds_{stage}" for stage in STAGES) if name in rows.columns]
    counted = rows.agg(
        F.count("*").alias("rows"),
        F.count_if(F.col("attempts") > 1).alias("retried"),
        *(F.count_if(F.col("status") == status).alias(status) for status in STATUSES),
        *(F.sum(name).alias(name) for name in stages),
    ).first()
    assert counted is not None
    return counted.asDict()


def _extent(commit: Commit, key: str) -> Extent | None:
    value = (commit.details or {}).get(key)
    return Extent.from_json(value) if value else None


def _note(upcoming: Extent | None) -> dict[str, object]:
    return {"next": upcoming.as_json() if upcoming else None}
