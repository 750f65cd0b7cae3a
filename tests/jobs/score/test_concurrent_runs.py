"""Several runs of the score job at once on one scores table."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from tiny_pairs import Score, good_rows, score_rows, write

from jobs.score import job as score
from jobs.score.scores_writer import ScoresWriter
from jobs.score.settings import ScoreConfig

pytestmark = pytest.mark.spark


def test_runs_at_once_share_the_work(
    spark: SparkSession, scoring_model: str, tmp_path: Path
) -> None:
    rows = good_rows(48)
    pairs = write(spark, tmp_path / "pairs", [*rows, ("uid-0000", None, "again")], files=1)
    config = ScoreConfig(
        pairs=pairs, scores=str(tmp_path / "scores"), model=scoring_model, slice_rows=8
    )
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(score.run, spark.newSession(), config) for _ in range(2)]
        summaries = [run.result() for run in runs]
    found = Counter((row["uid"], row["status"]) for row in score_rows(spark, config.scores))
    assert set(found.values()) == {1}
    assert len(found) == 49
    assert sum(summary["rows"] for summary in summaries) == 49
    assert (
        sum(summary["scored_twice"] for summary in summaries) <= 16
    )  # the last slice, or the first too


def test_another_run_that_finishes_first_is_noticed(
    spark: SparkSession,
    run_score: Score,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All of it happens after this run has scored a slice and before it commits it."""
    pairs = write(spark, tmp_path / "pairs", good_rows(12), files=2)
    options: dict[str, Any] = {"pairs": pairs, "scores": str(tmp_path / "scores")}
    original = ScoresWriter.commit

    def commit(*arguments: Any) -> int:
        monkeypatch.undo()
        assert run_score(**options, limit=5)["rows"] == 5  # it divides the rows otherwise
        assert run_score(**options, slice_rows=4)["rows"] == 7
        return original(*arguments)

    monkeypatch.setattr(ScoresWriter, "commit", commit)
    summary = run_score(**options)
    assert (summary["rows"], summary["by_other_runs"], summary["scored_twice"]) == (0, 12, 12)
    assert sorted(row["uid"] for row in score_rows(spark, options["scores"])) == [
        uid for uid, _, _ in good_rows(12)
    ]


def test_two_runs_that_retry_the_same_rows_count_one_attempt_each_row(
    spark: SparkSession, run_score: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = write(spark, tmp_path / "pairs", [("a", b"no image", "a cat"), *good_rows(3)])
    options: dict[str, Any] = {"pairs": pairs, "scores": str(tmp_path / "scores")}
    run_score(**options)
    original = ScoresWriter.commit

    def commit(*arguments: Any) -> int:
        monkeypatch.undo()
        run_score(**options, retry=["bad_image"])
        return original(*arguments)

    monkeypatch.setattr(ScoresWriter, "commit", commit)
    run_score(**options, retry=["bad_image"])
    rows = {row["uid"]: row["attempts"] for row in score_rows(spark, options["scores"])}
    assert rows == {"a": 2} | {uid: 1 for uid, _, _ in good_rows(3)}
    assert len(score_rows(spark, options["scores"])) == 4
