"""The maintain job: old tables brought up to date, constraints, compaction, unused files, writers
at work."""

import json
import os
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import tiny_pairs
from deltalake import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from jobs.core.errors import UsageError
from jobs.filter import job as filter_job
from jobs.maintain import job as maintain
from jobs.maintain import table_changes
from jobs.maintain.job import MaintainConfig
from jobs.query import job as query
from jobs.report import job as report
from jobs.tables import delta, runs, scores

pytestmark = pytest.mark.spark

OLD_SCHEMA = T.StructType(
    [
        T.StructField(field.name, field.dataType)
        for field in scores.SCORES_TABLE
        if field.name not in scores.LATER_COLUMNS
    ]
)
"""The table of an earlier version, without comments."""


def some_rows(spark: SparkSession, count: int, **columns: Any) -> DataFrame:
    values = {"status": "ok", "itm": 50.0, "copy": 0} | columns
    frame = spark.range(count, numPartitions=1).withColumn("uid", F.expr("uuid()"))
    return frame.select("uid", *(F.lit(value).alias(name) for name, value in values.items()))


def append(spark: SparkSession, path: str, rows: DataFrame, run: str = "r") -> None:
    full = scores.with_all_columns(rows, "s1", run, datetime.now(UTC))
    columns = delta.read(spark, path).columns
    full.select(*columns).write.format("delta").mode("append").save(path)


@pytest.fixture
def old(spark: SparkSession, tmp_path: Path) -> str:
    """An old scores table of three files."""
    path = str(tmp_path / "scores")
    spark.createDataFrame([], OLD_SCHEMA).write.format("delta").save(path)
    for _ in range(3):
        append(spark, path, some_rows(spark, 10))
    return path


def runs_table(spark: SparkSession, path: str) -> str:
    """A runs table of two files beside the scores table."""
    ref = runs.ref_beside(path)
    run = spark.createDataFrame([("r",)], "run_id string").coalesce(1)
    for _ in range(2):
        run.write.format("delta").mode("append").save(ref)
    return ref


def run(spark: SparkSession, path: str, **options: Any) -> dict[str, Any]:
    return maintain.run(spark, MaintainConfig(scores=path, **options))


def test_an_old_table_is_brought_up_to_date_once(
    spark: SparkSession, old: str, capsys: pytest.CaptureFixture[str]
) -> None:
    beside = runs_table(spark, old)

    def versions() -> tuple[int, int]:
        return delta.version(spark, old), delta.version(spark, beside)

    assert maintain.main(["--scores", old]) == 0
    out, err = capsys.readouterr()
    (line,) = out.splitlines()
    first = json.loads(line)
    assert [what.split()[0] for what in first["added"]] == [
        *("column", "comments", "constraint", "clustering")
    ]
    assert (first["files_before"], first["files_after"], first["files_removed"]) == (3, 1, 0)
    assert first["bytes_before"] > first["bytes_after"] > 0
    assert (first["runs"]["files_before"], first["runs"]["files_after"]) == (2, 1)
    assert "3 files (0.0 MB) before, 1 files (0.0 MB) now" in err
    table = delta.read(spark, old)
    assert {field.name: field.metadata.get("comment") for field in table.schema} == {
        field.name: field.metadata["comment"] for field in scores.SCORES_TABLE
    }
    assert table.count() == 30

    after = versions()
    assert run(spark, old)["added"] == []
    assert versions() == after
    # A constraint needs a newer writer; readers are not affected.
    reader = DeltaTable(old)
    assert reader.protocol().min_reader_version == 1
    assert reader.to_pyarrow_table().num_rows == 30


def test_scores_out_of_range_are_named_before_anything_is_changed(
    spark: SparkSession, old: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = [("bad", float("nan"), 1.0, None), ("bad", -0.5, None, None), ("bad", 1.0, 100.5, None)]
    append(spark, old, spark.createDataFrame(bad, "uid string, itm float, su float, odf float"))
    before = delta.version(spark, old)
    assert maintain.main(["--scores", old]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "3 rows" in line
    assert "itm 2 (not 0..100), su 1 (not 0..100); the first is of uid bad" in line
    assert delta.version(spark, old) == before

    spark.sql(f"DELETE FROM {delta.sql_name(old)} WHERE uid = 'bad'").collect()
    for change in table_changes.pending(spark, old):
        spark.sql(change.sql).collect()
    assert table_changes.pending(spark, old) == []
    for column, value in (("itm", float("nan")), ("su", 100.5), ("clip_score", -1.5)):
        with pytest.raises(Exception, match=f"(?is)score_ranges.* {column} : {value}"):
            append(spark, old, some_rows(spark, 1, **{column: value}))
    append(spark, old, some_rows(spark, 1, odf=None, su=100.0, ctq=0.0, clip_score=-1.0))
    assert delta.read(spark, old).count() == 31


def make_old(path: Path, hours: float) -> None:
    then = time.time() - 3600 * hours
    os.utime(path, (then, then))


def test_unused_files_go_after_the_hours_given(
    spark: SparkSession, old: str, capsys: pytest.CaptureFixture[str]
) -> None:
    killed = {hours: Path(old, f"part-killed-{hours}.parquet") for hours in (1, 30, 200)}
    for hours, path in killed.items():
        path.write_bytes(b"rows")
        make_old(path, hours)

    def left() -> list[int]:
        return [hours for hours, path in killed.items() if path.exists()]

    before = delta.version(spark, old)
    assert run(spark, old, retain_hours=300, dry_run=True)["files_to_remove"] == 0
    assert run(spark, old, dry_run=True)["files_to_remove"] == 1
    told = capsys.readouterr().err
    assert "would add constraint score_ranges" in told
    assert "no run may be writing" not in told
    assert left() == [1, 30, 200]
    assert delta.version(spark, old) == before
    assert run(spark, old, retain_hours=24)["files_removed"] == 2
    assert left() == [1]
    assert capsys.readouterr().err.count("no run may be writing") == 1
    # With 0 also what compaction has replaced, and the empty file that the table began with.
    result = run(spark, old, retain_hours=0)
    assert result["files_removed"] == 5
    assert len([path for path in Path(old).iterdir() if path.suffix == ".parquet"]) == 1
    assert delta.read(spark, old).count() == 30
    assert spark.conf.get("spark.databricks.delta.retentionDurationCheck.enabled", None) is None


@pytest.mark.long
def test_a_writer_at_work_loses_nothing(
    spark: SparkSession, old: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delta, "CHANGE_ATTEMPTS", 30)
    written: list[int] = []
    refused: list[Exception] = []
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            rows = some_rows(spark, 5, attempts=number)
            try:
                append(spark, old, rows)
            except Exception as error:
                refused.append(error)
            else:
                written.append(number)
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        run(spark, old)
    finally:
        stop.set()
        writer.join()
    found = delta.read(spark, old).where("attempts IS NOT NULL").groupBy("attempts").count()
    assert sorted(tuple(row) for row in found.collect()) == [(number, 5) for number in written]
    assert len(written) > 3
    # What a writer is refused, it is told; and such errors are those that maintain tries again.
    assert [error for error in refused if not delta.is_conflict(error)] == []


def test_conflicts_without_end_are_told_in_a_line(
    old: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(delta, "CHANGE_ATTEMPTS", 3)
    monkeypatch.setattr("time.sleep", lambda _: None)
    tries: list[int] = []

    def overtaken(*_: object) -> int:
        tries.append(1)
        raise RuntimeError("io.delta.exceptions.X: [DELTA_CONCURRENT_APPEND] a concurrent WRITE")

    monkeypatch.setattr(maintain, "pending", lambda *_: [])
    monkeypatch.setattr(maintain, "_vacuum", overtaken)
    assert maintain.main(["--scores", old]) == 1
    assert len(tries) == 3
    assert f"other runs change {old} all the time" in capsys.readouterr().err.splitlines()[-2]


def test_what_is_no_scores_table_is_refused(spark: SparkSession, old: str) -> None:
    for options, message in (
        ({"scores": runs_table(spark, old)}, "is not a scores table: it lacks uid"),
        ({"scores": f"{old}_none"}, "there is no Delta table"),
        ({"scores": old, "limit": 3}, "takes no --limit"),
    ):
        with pytest.raises(UsageError, match=message):
            maintain.run(spark, MaintainConfig(**options))


@pytest.mark.long
def test_the_other_jobs_work_on_a_maintained_table(
    spark: SparkSession, run_score: tiny_pairs.Score, tmp_path: Path
) -> None:
    pairs = tiny_pairs.write(spark, tmp_path / "pairs", tiny_pairs.good_rows(6))
    path = str(tmp_path / "scores")
    run_score(pairs=pairs, scores=path, limit=3)
    run(spark, path, retain_hours=0)
    assert run_score(pairs=pairs, scores=path)["scored"] == 3
    assert run(spark, path)["added"] == []
    assert run_score(pairs=pairs, scores=path)["scored"] == 0
    kept = str(tmp_path / "kept")
    assert filter_job.main(["--scores", path, "--selection", kept, "--rule", "itm >= 0"]) == 0
    assert delta.read(spark, kept).where("keep").count() == 6
    argv = ["--selection", kept, "--scores", path, "--pairs", pairs]
    assert report.main([*argv, "--output", str(tmp_path / "page.html")]) == 0
    assert query.main(["--name", "score_statistics", "--scores", path]) == 0
