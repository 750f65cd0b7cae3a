"""Writers that append to one table: nothing twice, nothing lost, whoever comes in between."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from jobs.core.errors import ConflictError
from jobs.tables import concurrent_append, delta
from jobs.tables.concurrent_append import ConcurrentAppender

pytestmark = pytest.mark.spark

SCHEMA = T.StructType([T.StructField("key", T.IntegerType()), T.StructField("run", T.StringType())])


class Writer:
    """One run that appends keys which no other run has, as far as it knows."""

    def __init__(self, spark: SparkSession, ref: str, name: str) -> None:
        self.spark, self.ref, self.name = spark, ref, name
        self.attempts = 0
        self.appender = ConcurrentAppender(spark, ref, "app", name, delta.version(spark, ref))

    def append(self, keys: list[int], meanwhile: Callable[[], object] = lambda: None) -> None:
        """Append; `meanwhile` happens after the first look and before the first attempt."""

        def make() -> tuple[DataFrame, dict[str, Any]]:
            runs = {commit.run_id for commit in self.appender.others}
            table = delta.read(self.spark, self.ref)
            if None not in runs:
                table = table.where(F.col("run").isin([*runs, "nobody"]))
            there = {row["key"] for row in table.collect()}
            rows = [(key, self.name) for key in keys if key not in there]
            self.attempts += 1
            if self.attempts == 1:
                meanwhile()
            return self.spark.createDataFrame(rows, SCHEMA), {}

        assert self.appender.append(make)


@pytest.fixture
def ref(spark: SparkSession, tmp_path: Path) -> str:
    delta.create(spark, str(tmp_path / "table"), SCHEMA)
    return str(tmp_path / "table")


def keys(spark: SparkSession, ref: str) -> list[int]:
    return sorted(row["key"] for row in delta.read(spark, ref).collect())


def test_what_another_run_adds_in_between_is_seen(spark: SparkSession, ref: str) -> None:
    first, second = Writer(spark, ref, "first"), Writer(spark, ref, "second")
    first.append([1, 2, 3], meanwhile=lambda: second.append([2, 3, 4]))
    assert keys(spark, ref) == [1, 2, 3, 4]
    assert (first.attempts, second.attempts) == (2, 1)
    second.append([5])
    first.append([5, 6])
    assert keys(spark, ref) == [1, 2, 3, 4, 5, 6]


def test_commits_of_strangers_do_not_hide_those_of_other_runs(
    spark: SparkSession, ref: str
) -> None:
    """With the table's version as the transaction's number, the last two would both land."""
    first, second = Writer(spark, ref, "first"), Writer(spark, ref, "second")
    first.append([0])
    second.append([10])
    first.appender.look()  # `second` has looked at an older version of the table than `first`

    def strangers_then_second() -> None:
        spark.sql(f"ALTER TABLE delta.`{ref}` SET TBLPROPERTIES ('a' = 'b')")
        first.appender.look()
        second.append([1, 2])

    third = Writer(spark, ref, "third")
    third.append([1, 2, 3], meanwhile=strangers_then_second)
    first.append([1, 2, 3, 4])
    assert keys(spark, ref) == [0, 1, 2, 3, 4, 10]


def test_rows_of_a_writer_of_another_kind_are_seen(spark: SparkSession, ref: str) -> None:
    first, second = Writer(spark, ref, "first"), Writer(spark, ref, "second")

    def meanwhile() -> None:
        spark.createDataFrame([(2, "stranger")], SCHEMA).write.format("delta").mode("append").save(
            ref
        )
        second.append([3])

    first.append([1, 2, 3], meanwhile)
    assert keys(spark, ref) == [1, 2, 3]


def test_a_log_of_which_delta_has_removed_the_beginning(
    spark: SparkSession, ref: str, tmp_path: Path
) -> None:
    interval = "SET TBLPROPERTIES ('delta.checkpointInterval' = '2')"
    spark.sql(f"ALTER TABLE delta.`{ref}` {interval}").collect()
    first = Writer(spark, ref, "first")
    for key in range(5):
        first.append([key])
    log = tmp_path / "table" / "_delta_log"
    assert (log / "00000000000000000004.checkpoint.parquet").exists()
    for version in range(4):
        (log / f"{version:020}.json").unlink()
    second = Writer(spark, ref, "second")
    second.append([4, 5], meanwhile=lambda: first.append([5]))
    assert keys(spark, ref) == [0, 1, 2, 3, 4, 5]


def test_a_run_that_gives_up_writes_nothing(spark: SparkSession, ref: str) -> None:
    appender = ConcurrentAppender(spark, ref, "app", "run", delta.version(spark, ref))
    assert not appender.append(lambda: None)
    assert keys(spark, ref) == []


def test_a_table_that_is_replaced_meanwhile_is_refused(spark: SparkSession, tmp_path: Path) -> None:
    ref = str(tmp_path / "table")
    delta.create(spark, ref, SCHEMA)
    with pytest.raises(ConflictError, match="has been replaced"):
        concurrent_append.commits_since(spark, ref, 5)


def test_a_commit_that_never_lands_is_told(
    spark: SparkSession, ref: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(concurrent_append, "ATTEMPTS", 3)
    monkeypatch.setattr(concurrent_append, "PAUSE_SECONDS", 0)
    monkeypatch.setattr(delta, "append", lambda *_: None)
    writer = Writer(spark, ref, "run")
    with pytest.raises(ConflictError, match="other runs write to"):
        writer.append([1])
