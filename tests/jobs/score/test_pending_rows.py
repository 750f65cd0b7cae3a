"""Which rows the score job reads, and in which slices."""

from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from tiny_pairs import Score, good_rows, write

from jobs.score import pending_rows
from jobs.tables import pairs as pairs_module

pytestmark = pytest.mark.spark


def test_a_table_whose_files_hold_other_rows_is_read_through_delta(
    spark: SparkSession, run_score: Score, tmp_path: Path
) -> None:
    """With deletion vectors, the files contain rows that are deleted from the table."""
    pairs = write(spark, tmp_path / "pairs", good_rows(40), files=2)
    spark.sql(
        f"ALTER TABLE delta.`{pairs}` SET TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')"
    )
    spark.sql(f"DELETE FROM delta.`{pairs}` WHERE uid < 'uid-0010'")
    assert not pending_rows.files_hold_just_the_rows(spark, pairs, ["uid"])
    assert run_score(pairs=pairs, scores=str(tmp_path / "scores"))["rows"] == 30


def test_keys_use_the_tables_own_image_hash(spark: SparkSession) -> None:
    frame = spark.createDataFrame(
        [("a", b"1", "x", "known")], "uid string, image binary, caption string, image_sha string"
    )
    row = pairs_module.with_keys(frame).first()
    assert row is not None
    assert row["image_sha"] == "known"
    assert len(row["caption_sha"]) == 64
