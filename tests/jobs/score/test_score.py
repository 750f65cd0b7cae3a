"""The score job on real Spark, Delta and a real (tiny) model: every row is scored exactly once."""

import json
from collections import Counter
from pathlib import Path

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession
from tiny_pairs import GOOD, Score, damaged_rows, good_rows, score_rows, write

from jobs.core.errors import UsageError
from jobs.tables import delta
from udfs.core.metrics import METRICS

pytestmark = pytest.mark.spark


def test_a_thousand_pairs_with_a_tenth_damaged(
    spark: SparkSession, run_score: Score, tmp_path: Path
) -> None:
    damaged, expected = damaged_rows()
    good = good_rows(890)
    repeated = [good[0], good[0], (good[1][0], GOOD[5], "other words"), *[(None, GOOD[0], "a")] * 7]
    rows = good + damaged + repeated
    assert len(rows) == 1000
    pairs = write(spark, tmp_path / "pairs", rows)
    summary = run_score(pairs=pairs, scores=str(tmp_path / "scores"))
    found = score_rows(spark, str(tmp_path / "scores"))
    assert len(found) == summary["rows"] == 1000
    statuses = Counter(row["status"] for row in found)
    assert statuses == summary["statuses"]
    assert statuses["duplicate_uid"] == 3
    assert statuses["null_uid"] == 7
    assert statuses["model_error"] == 0
    by_uid = {row["uid"]: row for row in found if row["status"] != "duplicate_uid"}
    assert {uid: by_uid[uid]["status"] for uid in expected} == expected
    assert all(by_uid[uid]["status"] == "ok" for uid, _, _ in good)
    for row in found:
        has_scores = [row[metric] is not None and 0 <= row[metric] <= 100 for metric in METRICS]
        assert all(has_scores) == (row["status"] in ("ok", "caption_truncated"))
        assert any(has_scores) == all(has_scores)
        assert (row["reason"] is None) == (row["status"] == "ok")

    again = run_score(pairs=pairs, scores=str(tmp_path / "scores"))
    assert again["rows"] == 0
    assert len(score_rows(spark, str(tmp_path / "scores"))) == 1000

    plain = DeltaTable(str(tmp_path / "scores")).to_pyarrow_table()  # a reader that is not Spark
    assert plain.num_rows == 1000
    assert {"uid", "itm", "odf", "ctq", "su", "status"} <= set(plain.column_names)
    last = delta.read(spark, str(tmp_path / "scores_runs")).orderBy("started_at").first()
    assert last is not None
    assert last["rows_by_status"] == summary["statuses"]
    assert set(last["seconds_by_stage"]) == {"load", "decode", "wait", "model"}
    assert json.loads(last["parameters"])["pairs"] == pairs
    assert last["versions"]["torch"]


def test_scores_do_not_depend_on_partitions_or_batches(
    spark: SparkSession, run_score: Score, tmp_path: Path
) -> None:
    rows = good_rows(150)
    one_file = write(spark, tmp_path / "one", rows, files=1)
    seven_files = write(spark, tmp_path / "seven", rows[::-1], files=7)
    run_score(pairs=one_file, scores=str(tmp_path / "a"), partitions=1, batch_rows=32)
    run_score(pairs=seven_files, scores=str(tmp_path / "b"), partitions=7, batch_rows=1)
    a, b = (
        {row["uid"]: row for row in score_rows(spark, str(tmp_path / name))} for name in ("a", "b")
    )
    assert a.keys() == b.keys()
    assert len(a) == 150
    for uid, row in a.items():
        for metric in METRICS:
            assert abs(row[metric] - b[uid][metric]) < 1e-4


def test_slices_of_any_size_score_each_row_once(
    spark: SparkSession, run_score: Score, tmp_path: Path
) -> None:
    pairs = write(spark, tmp_path / "pairs", good_rows(120), files=4)
    run_score(pairs=pairs, scores=str(tmp_path / "scores"), slice_rows=13)
    found = Counter(row["uid"] for row in score_rows(spark, str(tmp_path / "scores")))
    assert len(found) == 120
    assert set(found.values()) == {1}
    assert delta.version(spark, str(tmp_path / "scores")) > 5  # several commits


def test_bad_usage_is_explained(spark: SparkSession, run_score: Score, tmp_path: Path) -> None:
    pairs = write(spark, tmp_path / "pairs", good_rows(2))
    with pytest.raises(UsageError, match="did you mean caption"):
        run_score(pairs=pairs, scores=str(tmp_path / "scores"), caption_column="captoin")
    with pytest.raises(UsageError, match="no model folder"):
        run_score(pairs=pairs, scores=str(tmp_path / "scores"), model=str(tmp_path / "absent"))
    with pytest.raises(UsageError, match="no Delta table"):
        run_score(pairs=str(tmp_path / "absent"), scores=str(tmp_path / "scores"))
    with pytest.raises(UsageError, match="is not a scores table"):
        run_score(pairs=pairs, scores=pairs)
    assert not (tmp_path / "scores").exists()
