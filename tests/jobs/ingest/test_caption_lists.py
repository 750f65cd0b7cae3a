"""Lists of captions become rows; what is no caption is refused; what is left out is counted."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import DataFrame, SparkSession

from jobs.core.errors import UsageError
from jobs.ingest.captions.caption_lists import check_caption, one_caption_per_row
from jobs.ingest.job import run, to_pairs
from jobs.ingest.left_out import LeftOut
from jobs.ingest.settings import IngestConfig
from jobs.ingest.source_columns import LEFT_OUT, LEFT_OUT_TYPE, Source
from jobs.tables import delta

pytestmark = pytest.mark.spark


def rows_of(frame: DataFrame, *columns: str) -> list[tuple[object, ...]]:
    return sorted((tuple(row) for row in frame.select(*columns).collect()), key=repr)


def test_each_caption_of_a_list_is_a_row_under_a_uid_of_its_own(spark: SparkSession) -> None:
    frame = spark.createDataFrame(
        [("a", ["one", "two"]), ("b", ["alone"]), ("c", []), ("d", None)],
        "uid string, caption array<string>",
    )
    assert rows_of(one_caption_per_row(frame, "all"), "uid", "caption", "source_uid") == [
        ("a#0", "one", "a"),
        ("a#1", "two", "a"),
        ("b", "alone", None),
        ("c", None, None),
        ("d", None, None),
    ]
    assert rows_of(one_caption_per_row(frame, "first"), "uid", "caption") == [
        ("a", "one"),
        ("b", "alone"),
        ("c", None),
        ("d", None),
    ]


def test_made_up_uids_differ_by_caption(spark: SparkSession) -> None:
    frame = spark.createDataFrame(
        [(b"image", ["one", "two"], "x.jpg")],
        "image binary, caption array<string>, source_path string",
    )
    uids = [row["uid"] for row in to_pairs(frame).collect()]
    assert len({*uids}) == 2
    assert all(len(uid) == 32 for uid in uids)


@pytest.mark.parametrize(
    "kind",
    ["struct<value:string>", "map<string,string>", "array<struct<value:string>>", "array<int>"],
)
def test_what_is_no_caption_is_refused_by_name(spark: SparkSession, kind: str) -> None:
    schema = spark.createDataFrame([], f"text {kind}").schema
    with pytest.raises(UsageError, match=r"column text of in\.parquet is .*no caption"):
        check_caption(schema["text"].dataType, "text", "in.parquet")


def test_what_is_left_out_is_counted_as_it_passes(spark: SparkSession, tmp_path: Path) -> None:
    schema = f"uid string, caption array<string>, {LEFT_OUT} {LEFT_OUT_TYPE}"
    frame = spark.createDataFrame(
        [
            ("a", ["one", "two", "three"], None),
            (None, None, None),
            *((None, None, ("too odd", name, None)) for name in "xzb"),
            *((None, None, ("too odd", name, total)) for name, total in (("x", 2), ("b", 1))),
        ],
        schema,
    )
    rejects = spark.createDataFrame([("gone", "y")], "reason string, example string")
    left_out = LeftOut(Source(frame, left_out={"gone": (1, "y")}, rejects=rejects), True)
    assert rows_of(left_out.frame, "uid") == [("a",), (None,)]
    further = "further captions of a list (--captions-per-image first)"
    assert left_out.counts() == {"gone": (1, "y"), "too odd": (3, "b, x"), further: (2, "two")}
    left_out.write(str(tmp_path / "rejects"))
    written = delta.read(spark, str(tmp_path / "rejects"))
    assert rows_of(written, "reason", "example") == [
        (further, "three"),
        (further, "two"),
        ("gone", "y"),
        *(("too odd", name) for name in "bxz"),
    ]


def test_lists_of_a_parquet_file_are_ingested(spark: SparkSession, tmp_path: Path) -> None:
    table = pa.table({"uid": ["u"], "image": [b"x"], "caption": [["one", "two"]]})
    pq.write_table(table, tmp_path / "in.parquet")
    config = IngestConfig(
        source="parquet", input=str(tmp_path / "in.parquet"), output=str(tmp_path / "pairs")
    )
    assert run(spark, config)["rows"] == 2
    pairs = delta.read(spark, str(tmp_path / "pairs"))
    assert rows_of(pairs, "uid", "caption", "source_uid") == [
        ("u#0", "one", "u"),
        ("u#1", "two", "u"),
    ]
