"""Delta tables: references, idempotent appends, other readers, comments, missing tables."""

import datetime
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import types as T

from jobs.core.errors import ConflictError, UsageError
from jobs.tables import delta
from jobs.tables.pairs import PAIRS
from jobs.tables.runs import RUNS


@pytest.mark.parametrize(
    ("ref", "is_name"),
    [
        ("main.pairs", True),
        ("main.web.pairs", True),
        ("`my-catalog`.web.pairs", True),
        ("pairs", False),
        ("out/pairs", False),
        ("./main.pairs", False),
        ("../pairs.delta", False),
        ("s3://bucket/main.pairs", False),
        ("dbfs:/a.b", False),
        ("a.b.c.d", False),
        ("2024.pairs", False),
    ],
)
def test_a_reference_is_a_catalog_name_or_a_path(ref: str, is_name: bool) -> None:
    assert delta.is_name(ref) is is_name


def test_a_path_keeps_its_scheme_and_is_otherwise_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert delta.path_of("S") == str(tmp_path / "S")
    assert delta.path_of("s3://bucket/S") == "s3://bucket/S"
    assert delta.same("S", "./S")


@pytest.mark.spark
def test_an_append_counts_once_however_often_it_is_repeated(
    spark: SparkSession, tmp_path: Path
) -> None:
    ref = str(tmp_path / "runs")
    delta.create(spark, ref, RUNS)
    delta.create(spark, ref, RUNS)  # does nothing
    row = spark.createDataFrame([("run", "score")], "run_id string, job string")
    for version in (0, 0, 1, 1):
        delta.append(row, ref, "run", version)
    assert delta.read(spark, ref).count() == 2
    assert delta.read(spark, ref, version=1).count() == 1
    assert delta.version(spark, ref) == 2


@pytest.mark.spark
def test_other_readers_can_read_tables_of_awkward_columns(
    spark: SparkSession, tmp_path: Path
) -> None:
    awkward = spark.sql(
        "SELECT 'u' AS uid, null AS nothing, timestamp_ntz'2020-01-01 00:00:00' AS seen, "
        "named_struct('a b', timestamp_ntz'2020-01-01') AS `clip score`, 1 AS `clip=score`, "
        "interval 3 days AS age, parse_json('{}') AS doc, array(null) AS empties"
    )
    ref = str(tmp_path / "pairs")
    delta.overwrite(delta.storable(awkward), ref, skipping=["uid"])
    table = DeltaTable(ref)
    protocol = table.protocol()
    assert (protocol.min_reader_version, protocol.reader_features) == (1, None)
    row = table.to_pyarrow_table().to_pylist()[0]
    assert row["seen"] == datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    assert row["clip_score"].keys() == {"a_b"}
    assert row["clip_score_2"] == 1


@pytest.mark.spark
def test_column_comments_are_stored(spark: SparkSession, tmp_path: Path) -> None:
    ref = str(tmp_path / "pairs")
    pairs = spark.createDataFrame([("u",)], T.StructType([T.StructField("uid", T.StringType())]))
    delta.overwrite(delta.commented(pairs, PAIRS), ref)
    assert delta.read(spark, ref).schema["uid"].metadata == {"comment": "key of the pair"}


@pytest.mark.spark
def test_a_missing_table_is_a_usage_error(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for ref in (str(tmp_path / "folder"), str(tmp_path / "none"), "no.such", "no.such.table"):
        with pytest.raises(UsageError, match="there is no Delta table|no such"):
            delta.read(spark, ref)
        with pytest.raises(UsageError):
            delta.version(spark, ref)
        assert not delta.exists(spark, ref)


@pytest.mark.spark
def test_tables_work_by_catalog_name(spark: SparkSession) -> None:
    spark.sql("CREATE SCHEMA IF NOT EXISTS web")
    try:
        frame = spark.createDataFrame([("u",)], "uid string")
        delta.overwrite(frame, "web.pairs")
        delta.append(frame, "web.pairs", "run", 1)
        delta.append(frame, "spark_catalog.web.pairs", "run", 1)
        assert delta.read(spark, "web.pairs").count() == 2
        assert delta.read(spark, "web.pairs", version=0).count() == 1
        assert delta.version(spark, "web.pairs") == 1
        assert delta.exists(spark, "spark_catalog.web.pairs")
    finally:
        spark.sql("DROP SCHEMA web CASCADE")


@pytest.mark.spark
def test_a_table_that_another_run_makes_first(spark: SparkSession, tmp_path: Path) -> None:
    ref = str(tmp_path / "table")
    frame = spark.range(3)
    with ThreadPoolExecutor(3) as pool:
        for made in [pool.submit(delta.create, spark, ref, frame.schema) for _ in range(3)]:
            made.result()
    assert delta.read(spark, ref).count() == 0
    with pytest.raises(ConflictError, match="another run has made"):
        delta.overwrite(frame, ref, new=True)


def test_a_change_that_others_overtake_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    calls: list[int] = []

    def change() -> str:
        calls.append(1)
        if len(calls) < 3:
            raise RuntimeError("x.MetadataChangedException: [DELTA_METADATA_CHANGED] by another")
        return "done"

    assert delta.repeat_on_conflict("t", change) == "done"

    def always() -> None:
        raise RuntimeError("[DELTA_CONCURRENT_APPEND.WITH_PARTITION_HINT] by another")

    with pytest.raises(ConflictError, match="other runs change t all the time"):
        delta.repeat_on_conflict("t", always)
    with pytest.raises(ZeroDivisionError):
        delta.repeat_on_conflict("t", lambda: 1 / 0)
