"""Pairs in a catalog are scored through the table, in one scan, as the same pairs by path are."""

from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from tiny_pairs import Score, damaged_rows, good_rows, score_rows, write

from jobs.score import pending_rows
from jobs.score.scores_writer import ScoresWriter
from jobs.tables import delta
from udfs.core.metrics import METRICS

pytestmark = pytest.mark.spark


def test_a_table_by_name_is_scored_like_one_by_path(
    spark: SparkSession, run_score: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [*good_rows(30), *damaged_rows()[0][:5]]
    path = write(spark, tmp_path / "pairs", [*rows, *rows[:5]], files=2)
    spark.sql("CREATE SCHEMA IF NOT EXISTS lake")
    delta.read(spark, path).repartition(3).write.format("delta").mode("overwrite").saveAsTable(
        "lake.pairs"
    )
    by_path = run_score(pairs=path, scores=str(tmp_path / "by_path"))

    def denied(*_: Any) -> Any:
        raise PermissionError("no file of this table may be opened by its path")

    monkeypatch.setattr(pending_rows, "read_files", denied)
    by_name = run_score(pairs="lake.pairs", scores=str(tmp_path / "s"), slice_rows=15)
    assert by_name["rows"] == by_path["rows"] == 40
    history = spark.sql(f"DESCRIBE HISTORY delta.`{tmp_path / 's'}`")
    assert history.where(F.col("operation") == "WRITE").count() >= 3  # slice by slice

    found, expected = (
        {
            (row["uid"], row["caption_sha"], row["copy"]): [row["status"], *map(row.get, METRICS)]
            for row in (each.asDict() for each in score_rows(spark, str(tmp_path / name)))
        }
        for name in ("s", "by_path")
    )
    assert found.keys() == expected.keys()
    for key, (status, *values) in found.items():
        assert status == expected[key][0]
        assert values == pytest.approx(expected[key][1:], abs=1e-4, nan_ok=True)


def test_runs_at_once_on_a_table_by_name(
    spark: SparkSession, run_score: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one begins when the first has committed once, and does the rest meanwhile."""
    path = write(spark, tmp_path / "pairs", good_rows(24), files=1)
    spark.sql("CREATE SCHEMA IF NOT EXISTS lake")
    delta.read(spark, path).repartition(4).write.format("delta").mode("overwrite").saveAsTable(
        "lake.shared"
    )
    options: dict[str, Any] = {
        "pairs": "lake.shared",
        "scores": str(tmp_path / "s"),
        "slice_rows": 6,
    }
    original, others = ScoresWriter.commit, []

    def commit(*arguments: Any) -> int:
        written = original(*arguments)
        monkeypatch.undo()
        others.append(run_score(**options))
        return written

    monkeypatch.setattr(ScoresWriter, "commit", commit)
    summary = run_score(**options)
    assert summary["rows"] + others[0]["rows"] == 24
    assert (summary["by_other_runs"], summary["scored_twice"]) == (others[0]["rows"], 0)
    assert len({row["uid"] for row in score_rows(spark, options["scores"])}) == 24
    assert len(score_rows(spark, options["scores"])) == 24
