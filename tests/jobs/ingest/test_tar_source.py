"""Folders of tars as a source: which files are tars, what is left out, what options choose."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from tiny_tars import img2dataset, write_tar

from jobs.core.errors import UsageError
from jobs.ingest import job as ingest
from jobs.ingest import tar_source
from jobs.ingest.settings import IngestConfig
from jobs.ingest.source_columns import LEFT_OUT
from jobs.tables import delta

pytestmark = pytest.mark.spark


def config_of(folder: Path, **settings: Any) -> IngestConfig:
    return IngestConfig(
        source="webdataset", input=str(folder), output=f"{folder}_pairs", **settings
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Tars of several kinds, one behind a link, beside what an export of ours writes."""
    data = tmp_path / "tars"
    (data / "sub").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    write_tar(data / "00000.tar", img2dataset(2))
    write_tar(data / "sub" / "1.TGZ", {"x.jpg": b"x", "x.txt": b"packed"}, "gz")
    write_tar(tmp_path / "elsewhere" / "2.tar", {"y.jpg": b"y", "y.txt": b"linked", "y.npy": b""})
    (data / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(data)
    (data / "empty.tar").write_bytes(b"")
    for name in ("manifest.json", "00000.parquet", "00000_stats.json", "._00000.tar", "more.zip"):
        (data / name).write_bytes(b"?")
    return data


def test_a_folder_of_tars_and_what_is_left_out(spark: SparkSession, folder: Path) -> None:
    source = tar_source.webdataset(spark, str(folder))
    rows = source.frame.collect()
    pairs = [row for row in rows if row[LEFT_OUT] is None]
    assert sorted(bytes(row["caption"][0]) for row in pairs) == [
        *(b"caption 0", b"caption 1", b"linked", b"packed")
    ]
    left_out = [row[LEFT_OUT].asDict() for row in rows if row[LEFT_OUT]]
    assert sorted(left_out, key=str) == [
        {"reason": reason, "example": f"{folder}/{name}", "total": total}
        for reason, name in (
            ("members ending in .npy", "link/2.tar#y.npy"),
            ("tars without a sample", "empty.tar"),
        )
        for total in (1, None)
    ]
    assert source.left_out == {"files that are not tars": (1, f"{folder}/more.zip")}
    assert source.rejects is not None
    assert source.rejects.count() == 1
    assert source.notes["tars"] == 4


def test_rows_and_counts_are_all_that_the_tars_hold(spark: SparkSession, folder: Path) -> None:
    config = config_of(folder, rejects=f"{folder}_rejects")
    summary = ingest.run(spark, config)
    table = delta.read(spark, config.output)
    assert (summary["rows"], table.count()) == (4, 4)
    assert summary["left_out"] == {
        "files that are not tars": 1,
        "members ending in .npy": 1,
        "tars without a sample": 1,
    }
    assert delta.read(spark, f"{folder}_rejects").count() == 3
    uids = {row["uid"] for row in table.where(F.col("url").isNotNull()).collect()}
    assert uids == {f"{n:032x}" for n in range(2)}


def test_options_choose_endings_fields_and_keys(spark: SparkSession, tmp_path: Path) -> None:
    data = tmp_path / "tars"
    data.mkdir()
    for n in range(2):
        write_tar(
            data / f"{n}.tar",
            {f"v1.5_{n}.img": b"%d" % n, f"v1.5_{n}.json": b'{"blip": "b%d", "id": %d}' % (n, n)},
        )
    config = config_of(
        data, image_ending=[".IMG"], key_ends_at="last-dot", caption_column="blip", uid_column="id"
    )
    source = ingest.open_source(spark, config)
    rows = source.frame.collect()
    assert not source.fill_uid
    assert Counter((row["uid"], bytes(row["image"]), bytes(row["caption"][0])) for row in rows) == {
        ("0", b"0", b"b0"): 1,
        ("1", b"1", b"b1"): 1,
    }
    assert {row["key"] for row in rows} == {"v1.5_0", "v1.5_1"}
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"uid_column": "ids"}, "--uid-column ids: .* did you mean id.* .it has blip, id"),
        ({"caption_column": "xyz"}, "--caption-column xyz: .* has no such field"),
        ({"image_ending": ["jpg"], "caption_ending": [".jpg"]}, "are both jpg"),
    ]
    for settings, message in wrong:
        with pytest.raises(UsageError, match=message):
            ingest.open_source(spark, config_of(data, **settings))


def test_names_that_no_table_can_hold_are_counted(spark: SparkSession, tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"0.jpg": b"0"})
    try:
        os.link(tmp_path / "0.tar", os.fsencode(tmp_path) + b"/\xff.tar")
    except OSError:
        pytest.skip("the file system takes only UTF-8")
    listed, left_out = tar_source.list_tars(spark, str(tmp_path))
    assert [path for path, _ in listed] == [f"{tmp_path}/0.tar"]
    assert left_out["tars whose name is not UTF-8"] == [rf"{tmp_path}/\udcff.tar"]
