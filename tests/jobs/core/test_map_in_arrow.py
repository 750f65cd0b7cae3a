"""Columns of any name go through Python functions on the executors."""

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from jobs.core.map_in_arrow import map_in_arrow
from jobs.ingest.image_folders import with_images

pytestmark = pytest.mark.spark


def test_names_with_dots_and_backquotes(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"a")
    names = ["source_path", "nsfw.score", "with`quote", "plain"]
    frame = spark.createDataFrame([(str(tmp_path / "a.jpg"), 0.5, 1, 2)], names)
    same = map_in_arrow(frame, lambda batches: batches, frame.schema)
    assert same.columns == names
    assert same.collect() == frame.collect()
    read = with_images(frame, str(tmp_path), 1)
    assert [tuple(row) for row in read.collect()] == [
        (str(tmp_path / "a.jpg"), 0.5, 1, 2, bytearray(b"a"), None)
    ]
