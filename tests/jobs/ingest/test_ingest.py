"""Pairs tables from every kind of source, and what happens to input that does not fit."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from tiny_tars import img2dataset, write_tar

from jobs.core.errors import UsageError
from jobs.ingest import job as ingest
from jobs.ingest import sample_source
from jobs.ingest.settings import IngestConfig
from jobs.tables import delta
from jobs.tables.pairs import PAIRS

pytestmark = pytest.mark.spark
EMPTY_HASH = hashlib.sha256(b"").hexdigest()


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def run(spark: SparkSession, folder: Path, **settings: Any) -> tuple[dict[str, Any], DataFrame]:
    """Ingest into `folder`/pairs; return the summary and the table."""
    settings.setdefault("output", str(folder / "pairs"))
    config = IngestConfig(**settings)
    return ingest.run(spark, config), delta.read(spark, config.output)


def rows(frame: DataFrame) -> list[dict[str, Any]]:
    return [row.asDict() for row in frame.collect()]


@pytest.fixture
def mixed_parquet(tmp_path: Path) -> Path:
    """Images as Hugging Face writes them, numbers as keys, bytes as texts."""
    images = pa.array(
        [{"bytes": b"one", "path": "1.jpg"}, {"bytes": b"two", "path": None}, None, None],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    texts = pa.array([b"a cat", b"lone \xed\xa0\x80 and \x00 \xff", b" ", None], pa.binary())
    table = pa.table(
        {
            "image": images,
            "text": texts,
            "id": pa.array([1, 2, 2, None], pa.int64()),
            "Caption": ["not this one"] * 4,
            "clip score": [0.5] * 4,
            "seen": pa.array([0] * 4, pa.timestamp("us")),
        }
    )
    path = tmp_path / "mixed 100%+.parquet"
    pq.write_table(table, path)
    return path


def test_parquet_of_any_shape_becomes_pairs(
    spark: SparkSession, tmp_path: Path, mixed_parquet: Path
) -> None:
    summary, table = run(
        spark,
        tmp_path,
        source="parquet",
        input=str(mixed_parquet),
        caption_column="text",
        uid_column="id",
    )
    counts = {name: summary[name] for name in summary if name.startswith(("rows", "dup"))}
    assert counts == {
        "rows_added": 4,
        "rows": 4,
        "rows_without_image": 2,
        "rows_without_caption": 2,
        "rows_without_uid": 1,
        "duplicate_uids": 1,
    }
    extra = ["Caption_input", "clip_score", "seen"]
    assert table.columns == [*PAIRS.names, *extra]
    assert table.schema["uid"].dataType.simpleString() == "string"
    assert table.schema["seen"].dataType.simpleString() == "timestamp"
    bytewise = table.withColumn("caption", F.col("caption").cast("binary"))
    first, second, third, fourth = sorted(rows(bytewise), key=lambda row: row["uid"] or "~")
    if second["image"] is None:
        second, third = third, second
    assert (first["uid"], first["source_path"], bytes(first["image"])) == ("1", "1.jpg", b"one")
    assert first["image_sha"] == sha(b"one")
    assert first["caption_sha"] == sha(b"a cat")
    assert second["source_path"] == str(mixed_parquet)  # with its percent, plus and space
    assert bytes(second["caption"]) == b"lone \xed\xa0\x80 and \x00 \xff"
    assert second["caption_sha"] == sha(bytes(second["caption"]))
    assert third["image_sha"] == fourth["image_sha"] == fourth["caption_sha"] == EMPTY_HASH


def test_a_uid_that_is_not_given_is_a_hash_of_the_pair(
    spark: SparkSession, tmp_path: Path, mixed_parquet: Path
) -> None:
    settings = {"source": "parquet", "input": str(mixed_parquet), "caption_column": "text"}
    _, table = run(spark, tmp_path, **settings)
    for row in rows(table.drop("caption")):
        text = row["image_sha"] + row["caption_sha"] + row["source_path"]
        assert row["uid"] == sha(text.encode())[:32]
    # A table of pairs goes in again as it is, whatever order its rows are in.
    _, again = run(
        spark, tmp_path, source="delta", input=str(tmp_path / "pairs"), output=str(tmp_path / "p2")
    )
    assert again.exceptAll(table).isEmpty()
    assert again.columns == table.columns


def test_existing_tables_are_safe_and_reruns_add_nothing(
    spark: SparkSession, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    settings: dict[str, Any] = {"source": "parquet", "input": str(data)}
    pq.write_table(pa.table({"image": [b"1", b"2"], "caption": ["a", None]}), data / "1.parquet")
    assert run(spark, tmp_path, **settings)[0]["rows_added"] == 2
    with pytest.raises(UsageError, match="exists already .version 1.; --mode append"):
        run(spark, tmp_path, **settings)
    assert run(spark, tmp_path, **settings, mode="append")[0]["rows_added"] == 0
    more = pa.table({"image": [b"3"], "caption": ["c"], "book": ["b"]})
    pq.write_table(more, data / "2.parquet")
    summary, table = run(spark, tmp_path, **settings, mode="append")
    assert (summary["rows_added"], summary["rows"]) == (1, 3)
    assert "book" in table.columns
    summary, table = run(spark, tmp_path, **settings, mode="overwrite", limit=2)
    assert table.count() == summary["rows"] == 2


def test_rows_that_another_run_appends_meanwhile_are_not_added_again(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    settings: dict[str, Any] = {"source": "parquet", "input": str(data)}
    pq.write_table(pa.table({"image": [b"1"], "caption": ["a"]}), data / "1.parquet")
    run(spark, tmp_path, **settings)
    more = pa.table({"image": [b"2", b"3"], "caption": ["b", "c"]})
    pq.write_table(more, data / "2.parquet")
    original = ingest.new_rows

    def meanwhile(*frames: DataFrame) -> DataFrame:
        monkeypatch.undo()
        found = original(*frames)
        run(spark, tmp_path, **settings, mode="append")
        return found

    monkeypatch.setattr(ingest, "new_rows", meanwhile)
    summary, table = run(spark, tmp_path, **settings, mode="append")
    assert (summary["rows_added"], summary["rows"], table.count()) == (0, 3, 3)


def test_nothing_is_written_by_a_dry_run_or_bad_usage(
    spark: SparkSession, tmp_path: Path, mixed_parquet: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "pairs"
    line = ["--source", "parquet", "--input", str(mixed_parquet), "--output", str(output)]
    assert ingest.main([*line, "--caption-column", "text", "--dry-run"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["rows_estimated"] == 4
    assert "image: <3 bytes>" in captured.err
    for wrong, message in [
        (["--caption-column", "txt"], "has no column txt; did you mean text?"),
        (["--caption-column", "image"], "--caption-column needs text"),
        (["--image-column", "text", "--caption-column", "id", "--uid-column", "idd"], "mean id?"),
        (["--image-column", "id", "--caption-column", "text"], "id of"),
        (["--source", "folder"], "--source folder needs --captions"),
        (["--source", "webdataset", "--input", str(tmp_path)], "there is no .tar file"),
        (["--source", "delta", "--input", str(tmp_path)], "there is no Delta table"),
        (["--input", str(tmp_path / "none")], "there is no such file or folder"),
        (["--input", __file__], "cannot be read as Parquet"),
        (["--output", str(tmp_path)], "exists and is not a Delta table"),
    ]:
        assert ingest.main([*line, *wrong]) == 2
        captured = capsys.readouterr()
        assert message in captured.err
        assert "Traceback" not in captured.err
        assert json.loads(captured.out)["status"] == "usage_error"
    assert not output.exists()


@pytest.mark.parametrize("scheme", ["", "file:"])
def test_tars_are_read_up_to_the_damage(spark: SparkSession, tmp_path: Path, scheme: str) -> None:
    data = tmp_path / "tars"
    data.mkdir()
    write_tar(data / "00000.tar", img2dataset(3))
    whole = write_tar(data / "00001.tar", img2dataset(3)).read_bytes()
    (data / "00001.tar").write_bytes(whole[: 7680 + 1000])
    write_tar(data / "00002.tar", {"a.png": b"no uid", "b.png": b"nor this"})
    summary, table = run(spark, tmp_path, source="webdataset", input=scheme + str(data))
    assert (summary["tars"], summary["rows"], summary["read_errors"]) == (3, 7, 1)
    assert summary["rows_without_image"] == 1
    assert summary["duplicate_uids"] == 1  # the two tars begin alike
    assert summary["rows_without_uid"] == 0
    assert {"key", "url", "metadata", "read_error"} <= set(table.columns)
    good = rows(table.where("read_error IS NULL").orderBy("source_path"))
    assert [row["caption"] for row in good] == [
        *("caption 0", "caption 1", "caption 2", "caption 0"),
        *(None, None),
    ]
    assert len({row["uid"] for row in good}) == 5
    assert good[1]["source_path"] == f"{scheme}{data}/00000.tar#00001.jpg"
    assert good[1]["image_sha"] == sha(b"\1" * 5000)


def test_the_samples_are_complete(spark: SparkSession, tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    summary, table = run(spark, tmp_path, source="samples")
    assert summary["rows"] >= 240
    problems = ("rows_without_image", "rows_without_caption", "duplicate_uids")
    assert [summary[name] for name in problems] == [0, 0, 0]
    cat = table.where("file = 'chelsea.png' AND kind = 'excellent'").select("image", "source_path")
    (row,) = cat.collect()
    assert bytes(row["image"]).startswith(b"\x89PNG")
    assert row["source_path"] == "skimage/data/chelsea.png"


def test_samples_without_their_wheel_are_bad_usage(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install"):
        sample_source.samples(spark)
