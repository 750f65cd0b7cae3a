"""Appends to a Delta table beside other runs, such that no run adds what another has added already.

    appender = ConcurrentAppender(spark, scores, "score-abf3075bad98", run_id, version)
    appender.append(lambda: (rows_without(appender.others), {"slice": 7}))

Delta has no unique keys, and a MERGE that looks for them reads the whole table. Here a commit lands
only if its writer has seen all earlier ones of the same application:

- Each commit has a number, one above that of the application's last commit that its writer has
  seen. Delta passes over a transaction (`txnAppId`, `txnVersion`) whose number is not above the
  last one, without an error; and it refuses one that ran at the same time as another of its
  application. So whoever has not seen the last commit cannot commit.
- Whether a commit has landed is looked up in the table's history. If not, what the others have
  added meanwhile is looked at, and the commit is tried again without it.
- A writer that finds no commit of its application in the newest history begins with an empty one.
  Its number is above all so far: by these rules no number is above its commit's version.

Cost: a read of the newest entries of the history for each commit, however large the table is.
https://docs.delta.io/latest/delta-batch.html#idempotent-table-writes-in-foreachbatch
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pyspark.sql import DataFrame, Row, SparkSession

from ..core.errors import RUN_AGAIN, ConflictError
from . import delta

ATTEMPTS = 100
"""Each one that fails means that another writer has committed: so many in a row are enough."""

SEARCHED_COMMITS = 20
"""How far back the first look goes for the application's last commit."""

PAUSE_SECONDS = 0.2
"""At most, times the number of attempts so far, up to ten."""

_KEY = "mlm_filter"
_ADDS_NO_ROWS = (
    "ADD COLUMNS",
    "ADD CONSTRAINT",
    "CHANGE COLUMN",
    "CHANGE COLUMNS",
    "CLUSTER BY",
    "COMPUTE STATS",
    "CREATE TABLE",
    "DELETE",
    "DROP CONSTRAINT",
    "OPTIMIZE",
    "REORG",
    "SET TBLPROPERTIES",
    "UNSET TBLPROPERTIES",
    "UPGRADE PROTOCOL",
    "VACUUM END",
    "VACUUM START",
)


@dataclass(frozen=True)
class Commit:
    """What another writer has committed: `details` as it gave them, and the run; both are None for
    writers other than this application's, of whose rows nothing is known."""

    run_id: str | None
    details: dict[str, Any] | None


Make = Callable[[], tuple[DataFrame, dict[str, Any]] | None]
"""The rows to append now, with details for the other runs; or None to give up."""


class ConcurrentAppender:
    """Appends rows to the table `ref` for one run of an application.

    `version` is the version of the table that the run has read: commits after it are `others`,
    oldest first. What is said to other runs has to be JSON. Raises ConflictError if the table is
    replaced meanwhile.
    """

    def __init__(
        self, spark: SparkSession, ref: str, app_id: str, run_id: str, version: int
    ) -> None:
        self._spark = spark
        self._ref = ref
        self._app_id = app_id
        self._run_id = run_id
        self._number: int | None = None  # of the application's last commit that has been seen
        self._own_number = -1  # of this run's last commit that has been seen
        self._has_looked = False
        self._refused = 0  # how often, without a commit that explains it
        self.version = version
        self.others: list[Commit] = []

    def look(self) -> None:
        """Read what has been committed since the last look."""
        searched = 0 if self._has_looked else SEARCHED_COMMITS
        self._has_looked = True
        commits = commits_since(self._spark, self._ref, self.version, searched)
        if searched and commits and commits[0]["version"] == 0:
            self._number = 0  # the application has no commit but those that follow
        for row in commits:
            details = _details(row["userMetadata"])
            is_own_kind = details is not None and details.get("app") == self._app_id
            if details is not None and is_own_kind:
                self._number = details.get("number", self._number)
            if row["version"] <= self.version:
                continue
            self.version = row["version"]
            if details is None:
                if row["operation"] not in _ADDS_NO_ROWS:
                    self.others.append(Commit(None, None))
            elif is_own_kind and details["run_id"] == self._run_id:
                self._own_number = details.get("number", self._own_number)
            elif is_own_kind:
                self.others.append(Commit(details["run_id"], details))

    def announce(self, details: Callable[[], dict[str, Any] | None]) -> bool:
        """Commit without rows, so that other runs see what this one says of itself; return whether
        it did not give up (None)."""
        empty = delta.read(self._spark, self._ref).limit(0)

        def make() -> tuple[DataFrame, dict[str, Any]] | None:
            made = details()
            return None if made is None else (empty, made)

        return self._commit(make, empty=True)

    def append(self, make: Make, new_columns: bool = False) -> bool:
        """Append what `make` returns, exactly once; return whether it did not give up.

        `make` is called before each attempt, when `others` is as far as is known; what it returns
        must leave out all that these have added.
        """
        return self._commit(make, new_columns)

    def note(self, details: dict[str, Any]) -> str:
        """The text for a commit of this run's that is made elsewhere and adds no new keys."""
        return json.dumps({_KEY: {"app": self._app_id, "run_id": self._run_id, **details}})

    def _commit(self, make: Make, new_columns: bool = False, empty: bool = False) -> bool:
        if not self._has_looked:
            self.look()
        for attempt in range(ATTEMPTS):
            if self._number is None and not empty:
                self.announce(dict)
            made = make()
            if made is None:
                return False
            rows, details = made
            seen, version = self._number, self.version
            number = (self._above_all() if seen is None else seen) + 1
            note = self.note({"number": number, **details})
            with suppress(ConflictError):
                delta.append(rows, self._ref, self._app_id, number, new_columns, note)
            self.look()
            if self._own_number == number:
                self._refused = 0
                return True
            if self._number == seen and self.version == version:  # and no commit says why
                self._number, self._refused = None, self._refused + 1
            time.sleep(random.uniform(0, PAUSE_SECONDS * min(attempt, 10)))
        raise ConflictError(f"other runs write to {self._ref} all the time: {RUN_AGAIN}")

    def _above_all(self) -> int:
        """A number that no commit so far is above. The table's version; in a copy of another table,
        whose numbers may come from there, a power of two of it."""
        doubled = max(self.version, 1) << min(self._refused, 30)
        return doubled if self._refused else self.version


def commits_since(spark: SparkSession, ref: str, version: int, before: int = 0) -> list[Row]:
    """The commits of a Delta table after `version`, and as far as they are to be had so many
    `before`; oldest first: rows with `version`, `operation` and `userMetadata`. Reads little more
    of the log than these. Raises ConflictError if those after `version` are not to be had: the
    table has been replaced, or its log cleaned up.
    """
    limit = 10 + before
    while True:
        history = spark.sql(f"DESCRIBE HISTORY {delta.sql_name(ref)} LIMIT {limit}")
        rows = history.select("version", "operation", "userMetadata").collect()
        versions = [row["version"] for row in rows]
        if not versions or versions[0] < version:
            raise ConflictError(f"{ref} has been replaced by another table meanwhile: {RUN_AGAIN}")
        if versions[-1] <= version + 1 or len(rows) < limit:
            if versions[-1] > version + 1:
                raise ConflictError(f"{ref}: its log has been cleaned up meanwhile: {RUN_AGAIN}")
            first = version - before
            return sorted((row for row in rows if row["version"] > first), key=lambda row: row[0])
        limit *= 10


def _details(note: str | None) -> dict[str, Any] | None:
    """What a run of ours has noted with a commit; None for the commits of others."""
    try:
        details = json.loads(note or "")[_KEY]
    except (ValueError, KeyError, TypeError):
        return None
    return details if isinstance(details, dict) else None
