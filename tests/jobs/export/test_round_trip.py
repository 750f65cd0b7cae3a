"""Pairs with a column of every Spark type: exported, ingested again, and compared. What a format
cannot hold is the exception, and each is named here and by the job."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pytest
import webdataset
from pictures import encoded, picture
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from jobs.export import job as export
from jobs.export import selected_rows
from jobs.export.settings import ExportConfig
from jobs.ingest import job as ingest
from jobs.ingest.settings import IngestConfig
from jobs.tables import delta
from jobs.tables.pairs import PAIRS_KEYS, with_keys
from udfs.inputs import tars

pytestmark = pytest.mark.spark

TYPES = {
    "truth": ("boolean", "true", "false"),
    "one": ("tinyint", "-128", "127"),
    "two": ("smallint", "-32768", "32767"),
    "four": ("int", "1", "2147483647"),
    "eight": ("bigint", "2", "9223372036854775807"),
    "single": ("float", "1.5", "'NaN'"),
    "double": ("double", "0.1", "'-Infinity'"),
    "price": ("decimal(10,2)", "1.10", "99999999.99"),
    "count": ("decimal(18,0)", "7", "-999999999999999999"),
    "exact": ("decimal(38,18)", "0.000000000000000001", "12345678901234567890.5"),
    "words": ("string", "'grüße'", "unhex('61ff')"),
    "mask": ("binary", "unhex('00ff')", "unhex('')"),
    "day": ("date", "'2024-02-29'", "'0001-01-01'"),
    "seen": ("timestamp", "'2024-01-02 03:04:05.123456'", "'1969-12-31 23:59:59'"),
    "local": ("timestamp_ntz", "'2024-01-02 03:04:05.5'", "'9999-12-31 23:59:59'"),
    "tags": ("array<string>", "array('a', null)", "array()"),
    "sizes": ("array<array<int>>", "array(array(1), array())", "array(null)"),
    "counts": ("map<string,int>", "map('k', 1, 'l', null)", "map()"),
    "by_day": ("map<date,array<double>>", "map(date'2024-01-01', array(0.5D))", "map()"),
    "place": (
        "struct<name:string,at:timestamp,box:array<float>,known:struct<by:map<string,date>>>",
        "named_struct('name', 'x', 'at', timestamp'2024-01-02 03:04:05', 'box', array(1.5F),"
        " 'known', named_struct('by', map('me', date'2024-01-01')))",
        "named_struct('name', null, 'at', null, 'box', array('NaN'), 'known', null)",
    ),
    "anything": ("variant", "parse_json('{\"a\": [1]}')", "parse_json('2')"),
}
"""Column -> its type and two values as SQL; a third row has nulls."""

IMAGES = [encoded(picture(seed=n), kind) for n, kind in enumerate(("JPEG", "PNG", "TIFF"))]
UIDS = [f"{n:032X}" for n in (10, 11, 12)]
JSON = {
    "truth": True,
    "eight": 2,
    "double": 0.1,
    "price": 1.1,
    "count": 7,
    "exact": "0.000000000000000001",
    "words": "grüße",
    "mask": "AP8=",
    "day": "2024-02-29",
    "seen": "2024-01-02T03:04:05.123456+00:00",
    "local": "2024-01-02T03:04:05.500000",
    "tags": ["a", None],
    "sizes": [[1], []],
    "counts": {"k": 1, "l": None},
    "by_day": {"2024-01-01": [0.5]},
    "place": {
        "name": "x",
        "at": "2024-01-02T03:04:05+00:00",
        "box": [1.5],
        "known": {"by": {"me": "2024-01-01"}},
    },
    "anything": '{"a":[1]}',
}
"""What the first row is in a tar's JSON."""
FINITE = "CASE WHEN NOT isnan({0}) AND abs({0}) < double('Infinity') THEN {0} END"
"""JSON has no NaN and no infinities: they become nulls."""


@dataclass(frozen=True)
class Tables:
    folder: Path
    pairs: str
    selection: str
    uids: bytes
    """The file of uids."""


@pytest.fixture(scope="module")
def tables(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    folder = tmp_path_factory.mktemp("round_trip")
    rows = [(uid, image, n) for n, (uid, image) in enumerate(zip(UIDS, IMAGES, strict=True))]
    frame = spark.createDataFrame(rows, "uid string, image binary, n int")
    columns = [
        f"CASE n WHEN 0 THEN CAST({first} AS {kind}) WHEN 1 THEN CAST({second} AS {kind}) END"
        f" AS {name}"
        for name, (kind, first, second) in TYPES.items()
    ]
    pair = ["uid", "image", "concat('ein Bär ', n) AS caption", "'/a/b.jpg' AS source_path"]
    frame = frame.selectExpr(*pair, *columns)
    pairs, selection = str(folder / "pairs"), str(folder / "selection")
    frame.write.format("delta").save(pairs)  # as it is, not as ingest would store it
    keys = with_keys(delta.read(spark, pairs)).select(*PAIRS_KEYS, "tags")
    verdict = ["true AS keep", "1 AS repetitions", "CAST(null AS string) AS first_failed_rule"]
    signals = ["map('s', 1) AS marks", "50.5F AS itm", "tags AS tags"]
    selected = keys.selectExpr(*PAIRS_KEYS, *verdict, *signals)
    # a copy, which rules do not tell apart: the first by its values is written
    copy = selected.where(f"uid = '{UIDS[0]}'").withColumn("marks", F.expr("map('s', 2)"))
    delta.overwrite(selected.unionByName(copy), selection)
    uids = folder / "uids.npy"
    config = {"format": "uids", "selection": selection, "output": str(uids)}
    export.run(spark, ExportConfig.model_validate(config))
    return Tables(folder, pairs, selection, uids.read_bytes())


def exported(spark: SparkSession, tables: Tables, kind: str, **options: Any) -> dict[str, Any]:
    config = {"format": kind, "selection": tables.selection, "pairs": tables.pairs}
    config |= {"output": str(tables.folder / kind), **options}
    return export.run(spark, ExportConfig.model_validate(config))


def ingested(spark: SparkSession, tables: Tables, kind: str) -> DataFrame:
    """The pairs table from an export; it has the same pairs, and gives the same file of uids."""
    back = str(tables.folder / f"{kind}_back")
    config = {"source": kind, "input": str(tables.folder / kind), "output": back}
    ingest.run(spark, IngestConfig.model_validate(config))
    uids = tables.folder / f"{kind}.npy"
    frame = delta.read(spark, back)
    named = {"format": "uids", "selection": tables.selection, "pairs": back}
    export.run(spark, ExportConfig.model_validate(named | {"output": str(uids)}))
    assert uids.read_bytes() == tables.uids
    assert sorted(row["uid"] for row in frame.select("uid").collect()) == UIDS
    return frame


def values(frame: DataFrame, *names: str) -> list[tuple[str, ...]]:
    """The rows by uid, as text: NaN is equal to NaN."""
    rows = frame.select("uid", *names).orderBy("uid").collect()
    return [tuple(repr(value) for value in row) for row in rows]


def test_delta_and_parquet(spark: SparkSession, tables: Tables) -> None:
    read = delta.read(spark, tables.pairs)
    as_delta = exported(spark, tables, "delta")
    assert as_delta["columns_left_out"] == {}
    assert as_delta["columns_changed"] == {
        "local": "timestamp_ntz is written as timestamp",
        "anything": "variant is written as string",
    }
    back = ingested(spark, tables, "delta")
    same = ["image", "caption", "source_path", *(set(TYPES) - {"local", "anything"})]
    assert values(back, *same) == values(read, *same)
    expected = read.withColumn("anything", F.to_json("anything"))
    assert values(back, "local", "anything") == values(expected, "local", "anything")

    as_parquet = exported(spark, tables, "parquet")
    assert as_parquet["columns_left_out"] == {
        "tags": "the selection's column of this name is written"
    }
    changed = as_parquet["columns_changed"]
    assert set(changed) == {"anything", "counts", "by_day", "place", "marks"}
    assert changed["counts"] == "map<string,int> is written with lists of key, value"
    back = ingested(spark, tables, "parquet")
    valid = expected.withColumn("words", F.make_valid_utf8("words"))
    maps = {"counts": F.map_entries("counts"), "by_day": F.map_entries("by_day")}
    known = F.struct(F.map_entries("place.known.by").alias("by"))
    known = F.when(F.col("place.known").isNotNull(), known)
    valid = valid.withColumns(maps | {"place": F.col("place").withField("known", known)})
    same = ["image", "caption", "source_path", *TYPES]
    assert values(back, *same) == values(valid, *same)
    # the first of the two copies
    marks = back.selectExpr("uid", "map_from_entries(marks)['s'] AS mark", "itm")
    assert values(marks, "mark", "itm") == [(repr(uid), "1", "50.5") for uid in UIDS]

    cache = str(tables.folder / "cache")
    train = datasets.load_dataset(str(tables.folder / "parquet"), cache_dir=cache, split="train")
    assert {"uid", "image", "caption", *TYPES} <= set(train.column_names)
    row = next(row for row in train if row["uid"] == UIDS[0])
    assert row["place"]["known"]["by"][0]["key"] == "me"
    assert str(row["exact"]) == "1E-18"
    assert row["seen"].isoformat() == JSON["seen"]
    assert [row["image"].size for row in train] == [(40, 30)] * 3


def test_webdataset(
    spark: SparkSession, tables: Tables, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = exported(spark, tables, "webdataset")
    assert set(summary["columns_changed"]) == {"anything"}
    assert summary["image_extensions"] == {"jpg": 1, "png": 1, "tif": 1}
    said = capsys.readouterr().err
    assert "1 images are tif (1), which OpenCLIP skips: --image-format jpg re-encodes them" in said
    assert "column anything: variant is written as text" in said
    back = ingested(spark, tables, "webdataset")
    read = delta.read(spark, tables.pairs)
    finite = {name: F.expr(FINITE.format(name)) for name in ("single", "double")}
    box = F.expr(f"transform(place.box, x -> {FINITE.format('x')})")
    place = F.when(F.col("place").isNotNull(), F.col("place").withField("box", box))
    texts = {"words": F.make_valid_utf8("words"), "anything": F.to_json("anything")}
    expected = read.withColumns({**finite, **texts, "place": place})
    same = ["image", "caption", "source_path", *TYPES]
    assert values(back, *same) == values(expected, *same)
    assert values(back, "marks")[0] == (repr(UIDS[0]), "{'s': 1}")

    # Where not all tars are an export's, the columns stay in the samples' JSON.
    own = tables.folder / "webdataset" / "00000000.tar"
    rows = list(tars.read_tar(str(shutil.copy(own, tables.folder))))
    found = {row["uid"]: json.loads(row["metadata"]) for row in rows}
    assert found[UIDS[0]].items() >= JSON.items()
    assert found[UIDS[0]]["marks"] == {"s": 1}
    nonfinite = {"single": None, "double": None, "words": "a\ufffd", "eight": 2**63 - 1}
    assert {name: found[UIDS[1]].get(name) for name in nonfinite} == nonfinite
    assert found[UIDS[1]]["exact"] == "12345678901234567890.500000000000000000"
    assert not set(TYPES) & set(found[UIDS[2]])  # nulls are left away

    folder, cache = tables.folder / "webdataset", str(tables.folder / "cache")
    samples = list(webdataset.WebDataset(str(folder / "00000000.tar"), shardshuffle=False))
    assert sorted(json.loads(sample["json"])["uid"] for sample in samples) == UIDS
    config = {"image_format": "jpg", "image_size": 20, "output": str(tables.folder / "small")}
    summary = exported(spark, tables, "webdataset", **config)
    assert (summary["image_extensions"], summary["rows"]) == ({"jpg": 3}, 3)
    assert "which OpenCLIP skips" not in capsys.readouterr().err
    small = tables.folder / "small"
    ways: list[dict[str, Any]] = [
        {"path": str(small)},
        {"path": "webdataset", "data_files": str(small / "*.tar")},
        {"path": "webdataset", "data_dir": str(small), "data_files": "*.tar"},
    ]
    for way in ways:
        train = datasets.load_dataset(**way, cache_dir=cache, split="train")
        assert [row["jpg"].size for row in train] == [(20, 15)] * 3
        assert sorted(row["json"]["uid"] for row in train) == UIDS


def test_what_files_cannot_hold_is_text(spark: SparkSession) -> None:
    frame = spark.sql(
        "SELECT 1 AS n, INTERVAL '1' DAY AS day, INTERVAL '2' MONTH AS month, null AS none,"
        " array(INTERVAL '1' DAY) AS days, map('a', parse_json('1')) AS any"
    )
    written, changed = selected_rows.writable(frame)
    assert changed == {
        "day": "interval day is written as text",
        "month": "interval month is written as text",
        "none": "void is written as text",
        "days": "array<interval day> is written as text",
        "any": "map<string,variant> is written as text",
    }
    assert [tuple(row) for row in written.collect()] == [
        (1, "INTERVAL '1' DAY", "INTERVAL '2' MONTH", None, "[\"INTERVAL '1' DAY\"]", '{"a":1}')
    ]
