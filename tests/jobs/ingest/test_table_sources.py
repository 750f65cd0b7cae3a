"""Parquet and Delta as people write them: read, or refused in a line that names the column."""

import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import Row, SparkSession

from jobs.core.errors import UsageError
from jobs.core.session import session_settings
from jobs.ingest import job as ingest
from jobs.ingest import table_sources
from jobs.ingest.parquet_files import survey
from jobs.ingest.settings import IngestConfig
from jobs.ingest.source_columns import Columns, Source
from jobs.tables import delta

IMAGES = [b"image 0", b"image 1"]
CAPTIONS = ["caption 0", "caption 1"]


def table(**columns: Any) -> pa.Table:
    return pa.table({"image": IMAGES, "caption": CAPTIONS} | columns)


def write(path: Path, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table(**columns), path)
    return path


def read(spark: SparkSession, path: Path, **columns: Any) -> tuple[list[Row], Source]:
    source = table_sources.parquet(spark, str(path), Columns(**columns))
    rows = source.frame.collect()
    assert source.rows == len(rows)
    return sorted(rows, key=lambda row: str(row["caption"])), source


UNREADABLE = {
    "float16": pa.array(np.arange(2, dtype=np.float16)),
    "time32[ms]": pa.array([1, 2], pa.time32("ms")),
    "time64[us]": pa.array([1, 2], pa.time64("us")),
    "time64[ns]": pa.array([1, 2], pa.time64("ns")),
    "list<element: timestamp[ns]>": pa.array([[1], []], pa.list_(pa.timestamp("ns"))),
    "decimal256(50, 2)": pa.array([1, 2], pa.decimal256(50, 2)),
    "list<element: float16>": pa.array([[np.float16(1)], []], pa.list_(pa.float16())),
}


@pytest.mark.spark
def test_columns_that_spark_cannot_read_are_left_out_by_name(
    spark: SparkSession, tmp_path: Path
) -> None:
    ids = [uuid.UUID(int=10**n) for n in (1, 30)]
    columns = {f"odd {n}": values for n, values in enumerate(UNREADABLE.values())}
    uuids = pa.array([each.bytes for each in ids], pa.uuid())
    path = write(tmp_path / "a.parquet", url=["u", "v"], uid=uuids, other=uuids, **columns)
    rows, source = read(spark, path)
    assert source.notes["columns_left_out"] == [
        f"odd {n} is {name}, which Spark does not read" for n, name in enumerate(UNREADABLE)
    ]
    assert [row["uid"] for row in rows] == [row["other"] for row in rows] == list(map(str, ids))
    assert [bytes(row["image"]) for row in rows] == IMAGES
    assert [row["url"] for row in rows] == ["u", "v"]
    assert rows[0]["source_path"] == str(path)
    with pytest.raises(UsageError, match="a.parquet: odd 0 is float16, which Spark does not read"):
        read(spark, path, uid="ODD 0")


@pytest.mark.spark
def test_nanoseconds_as_pandas_writes_them_are_times(spark: SparkSession, tmp_path: Path) -> None:
    exact = [1_711_850_400_123_456_789, -1]  # 2024-03-31T02:00, which Berlin's clocks skip
    local = pa.array(exact, pa.timestamp("ns"))
    instant = pa.array(exact, pa.timestamp("ns", "Europe/Berlin"))
    path = write(tmp_path / "a.parquet", local=local, instant=instant)
    with session_settings(spark, {"spark.sql.session.timeZone": "Europe/Berlin"}):
        source = table_sources.parquet(spark, str(path), Columns())
        texts = source.frame.selectExpr("string(local)", "unix_micros(instant)")
        assert {tuple(row) for row in texts.collect()} == {
            ("2024-03-31 02:00:00.123456", exact[0] // 1000),
            ("1969-12-31 23:59:59.999999", -1),
        }
    assert source.notes == {}


@pytest.mark.spark
def test_repeated_and_conflicting_columns_are_named(spark: SparkSession, tmp_path: Path) -> None:
    names = ["image", "caption", "URL", "url", "_metadata", "a.b", "uid"]
    values = [IMAGES, CAPTIONS, ["1", "2"], ["3", "4"], ["m", "n"], [5, 6], ["A0", "b1"]]
    pq.write_table(pa.table(values, names=names), tmp_path / "case.parquet")
    rows, source = read(spark, tmp_path / "case.parquet")
    assert source.notes["columns_left_out"] == [
        "URL and url have one name (case aside) in case.parquet"
    ]
    assert [(r["uid"], r["_metadata_input"], r["a.b"]) for r in rows] == [
        ("A0", "m", 5),
        ("b1", "n", 6),
    ]
    pq.write_table(
        pa.table([IMAGES, CAPTIONS, CAPTIONS], names=["image", "caption", "caption"]),
        tmp_path / "two.parquet",
    )
    with pytest.raises(UsageError, match="caption and caption have one name"):
        read(spark, tmp_path / "two.parquet")

    folder = tmp_path / "differ"
    write(
        folder / "a.parquet",
        uid=[1, 2],
        wide=pa.array([1, 2], pa.int32()),
        empty=pa.nulls(2),
        x=[1, 2],
    )
    write(folder / "b.parquet", uid=["x", "y"], wide=[2**40, 3], empty=["text", None], x=["1", "2"])
    with pytest.raises(UsageError, match="differ: uid is bigint in a.parquet, string in b.parquet"):
        read(spark, folder)
    write(folder / "b.parquet", UID=[3, 4], wide=[2**40, 3], empty=["text", None], x=["1", "2"])
    rows, source = read(spark, folder)
    assert source.notes["columns_left_out"] == ["x is bigint in a.parquet, string in b.parquet"]
    assert sorted(row["uid"] for row in rows) == ["1", "2", "3", "4"]
    assert sorted(row["wide"] for row in rows) == [1, 2, 3, 2**40]
    assert sorted(str(row["empty"]) for row in rows) == ["None", "None", "None", "text"]


@pytest.mark.spark
def test_only_data_files_of_a_folder_are_read(spark: SparkSession, tmp_path: Path) -> None:
    folder = tmp_path / "a [b] {c}*?"
    write(folder / "data/train-0.parquet", uid=["1", "2"])
    write(folder / "other/no_ending", uid=["3", "4"])
    write(tmp_path / "elsewhere/linked.parquet", uid=["5", "6"])
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/loop").symlink_to(folder)
    for name in ("README.md", "manifest.json", "_SUCCESS", ".data.parquet.crc", "0_stats.json"):
        (folder / name).write_text("text")
    write(folder / "_hidden.parquet", uid=["7", "8"])
    rows, source = read(spark, folder)
    assert sorted(row["uid"] for row in rows) == list("123456")
    assert {row["source_path"] for row in rows} == {
        str(folder / name)
        for name in ("data/train-0.parquet", "other/no_ending", "link/linked.parquet")
    }
    assert source.left_out == {table_sources.HIDDEN: (2, str(folder / "_hidden.parquet"))}
    assert source.rejects is not None
    assert source.rejects.count() == 2
    (folder / "data/broken.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UsageError, match=r"cannot be read as Parquet: data/broken.parquet: "):
        read(spark, folder)
    with pytest.raises(UsageError, match="Spark reads no files whose names begin with _"):
        read(spark, folder / "_hidden.parquet")

    parts = tmp_path / "parts"
    write(parts / "lang=en/x.parquet")
    write(parts / "lang=de/x.parquet")
    rows, _ = read(spark, parts)
    assert sorted(row["lang"] for row in rows) == ["de", "de", "en", "en"]
    write(parts / "y.parquet")  # Spark alone drops its rows without a word
    write(parts / "more/lang=fr/day=2/x.parquet")
    rows, source = read(spark, parts)
    assert Counter((row["lang"], row["day"]) for row in rows) == dict.fromkeys(
        [("de", None), ("en", None), ("fr", 2), (None, None)], 2
    )
    assert source.notes == {}
    for number in range(table_sources.MOST_KINDS):
        write(parts / f"{number}/lang=en/x.parquet")
    rows, source = read(spark, parts)
    assert len(rows) == 48
    assert source.notes["columns_left_out"] == [
        f"{name} is in names of folders of different kinds" for name in ("lang", "day")
    ]


@pytest.mark.spark
@pytest.mark.parametrize(
    ("image", "message"),
    [
        (pa.array([[{"bytes": b"x", "path": "p"}]] * 2), "array<struct<.*one image a row"),
        (pa.array([[1, 2]] * 2, pa.list_(pa.uint8())), "array<smallint>.*as binary"),
        (pa.array(["aGk="] * 2), "is string.*base64"),
        (pa.array([1, 2]), "is bigint; --image-column needs the bytes"),
    ],
)
def test_images_of_other_types_are_refused_in_a_line(
    spark: SparkSession, tmp_path: Path, image: pa.Array, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        read(spark, write(tmp_path / "a.parquet", image=image))


@pytest.mark.spark
def test_uids_of_any_type_are_their_plain_text(spark: SparkSession, tmp_path: Path) -> None:
    uids = {
        "text": (["00A", "a"], ["00A", "a"]),
        "uint64": (pa.array([2**64 - 1, 7], pa.uint64()), ["18446744073709551615", "7"]),
        "fixed": (pa.array([b"\x00" * 16, b"\xff" * 16], pa.binary(16)), ["00" * 16, "ff" * 16]),
        "dictionary": (pa.array(["B", "b"]).dictionary_encode(), ["B", "b"]),
        "double": (pa.array([123456789012.0, None]), ["123456789012", None]),
    }
    path = write(tmp_path / "a.parquet", **{name: values for name, (values, _) in uids.items()})
    for name, (_, expected) in uids.items():
        rows, _ = read(spark, path, uid=name.upper())
        assert [row["uid"] for row in rows] == expected
    config = IngestConfig(
        source="parquet", input=str(path), output=str(tmp_path / "p"), uid_column="TEXT"
    )
    ingest.run(spark, config)
    stored = delta.read(spark, str(tmp_path / "p"))
    assert {row["uid"] for row in stored.select("uid").collect()} == {"00A", "a"}


SIMPLE = [pa.int8(), pa.int64(), pa.uint32(), pa.float32(), pa.float16(), pa.string(), pa.binary()]
SIMPLE += [pa.uuid(), pa.time64("ns"), pa.timestamp("us"), pa.null(), pa.date32(), pa.bool_()]
TYPES = st.recursive(
    st.sampled_from(SIMPLE),
    lambda inner: (
        inner.map(pa.list_)
        | inner.map(lambda t: pa.map_(pa.string(), t))
        | st.lists(inner, min_size=1, max_size=3).map(
            lambda types: pa.struct([(f"f{n}", t) for n, t in enumerate(types)])
        )
    ),
    max_leaves=4,
)


def has_unreadable(data_type: pa.DataType) -> bool:
    text = str(data_type)
    return any(word in text for word in ("halffloat", "time64", "uuid"))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(types=st.lists(TYPES, min_size=1, max_size=5))
def test_every_column_is_in_the_schema_or_named(tmp_path: Path, types: list[pa.DataType]) -> None:
    path = tmp_path / "any.parquet"
    schema = pa.schema([(f"c{number}", data_type) for number, data_type in enumerate(types)])
    pq.ParquetWriter(path, schema).close()
    found = survey(str(path), "--input any")
    for name, data_type in zip(schema.names, types, strict=True):
        converted = data_type == pa.uuid() or str(data_type).startswith("timestamp[ns")
        assert (name in found.unreadable) == (has_unreadable(data_type) and not converted)
        assert (name in found.schema.names) != (name in found.unreadable)
        assert (name in found.converted) == converted


@pytest.mark.spark
def test_spark_reads_every_type_that_is_said_to_be_readable(
    spark: SparkSession, tmp_path: Path
) -> None:
    types = [pa.uint8(), pa.uint16(), pa.duration("us"), pa.date64(), pa.decimal128(38, 2)]
    types += [pa.list_(pa.int32(), 2), pa.large_string(), pa.timestamp("ms", "UTC"), pa.json_()]
    types += [pa.struct([("n", pa.null())]), pa.map_(pa.string(), pa.list_(pa.int8())), *SIMPLE]
    path = tmp_path / "types.parquet"
    schema = pa.schema([(f"c{number}", data_type) for number, data_type in enumerate(types)])
    pq.write_table(pa.Table.from_pylist([{}] * 2, schema), path)
    found = survey(str(path), "--input types")
    assert len(found.schema) + len(found.unreadable) == len(types)
    assert spark.read.schema(found.schema).parquet(str(path)).collect()[0][0] is None


def test_a_delta_table_is_not_read_as_its_files(tmp_path: Path) -> None:
    (tmp_path / "_delta_log").mkdir()
    with pytest.raises(UsageError, match="is a Delta table: read it with --source delta"):
        survey(str(tmp_path), "--input x")
