"""The score job on a table it has scored before: killed runs, new rows, failed rows."""

from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from tiny_pairs import GOOD, Score, good_rows, score_rows, write

from jobs.score.scores_writer import ScoresWriter
from jobs.tables import delta

pytestmark = pytest.mark.spark


def test_a_run_that_is_killed_is_resumed_where_it_stopped(
    spark: SparkSession, run_score: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = write(spark, tmp_path / "pairs", good_rows(90), files=3)
    original = ScoresWriter.commit
    written: list[int] = []

    def fail_on_third_call(*arguments: Any) -> int:
        if len(written) == 2:
            raise RuntimeError("the machine is gone")
        written.append(original(*arguments))
        return written[-1]

    monkeypatch.setattr(ScoresWriter, "commit", fail_on_third_call)
    with pytest.raises(RuntimeError):
        run_score(pairs=pairs, scores=str(tmp_path / "scores"), slice_rows=20)
    monkeypatch.undo()
    summary = run_score(pairs=pairs, scores=str(tmp_path / "scores"))
    assert summary["rows"] == 90 - sum(written)
    found = [row["uid"] for row in score_rows(spark, str(tmp_path / "scores"))]
    assert sorted(found) == sorted(uid for uid, _, _ in good_rows(90))


def test_only_what_is_new_or_changed_is_scored(
    spark: SparkSession, run_score: Score, scoring_model: str, tmp_path: Path
) -> None:
    pairs = write(spark, tmp_path / "pairs", good_rows(30))
    scores = str(tmp_path / "scores")
    assert run_score(pairs=pairs, scores=scores, limit=10)["rows"] == 10
    assert run_score(pairs=pairs, scores=scores, limit=10)["rows"] == 0
    assert run_score(pairs=pairs, scores=scores)["rows"] == 20
    changed = good_rows(31)
    changed[3] = (changed[3][0], changed[3][1], "another caption")
    write(spark, tmp_path / "pairs", changed)
    planned = run_score(pairs=pairs, scores=scores, dry_run=True)
    assert planned["rows"] == 2
    assert planned["model_runs"][1].startswith("one_pass: ")
    assert run_score(pairs=pairs, scores=scores)["rows"] == 2
    other = run_score(pairs=pairs, scores=scores, max_caption_tokens=16)  # another scorer
    assert other["rows"] == 31
    assert len(score_rows(spark, scores)) == 63


def test_failed_rows_are_scored_again_when_asked(
    spark: SparkSession, run_score: Score, tmp_path: Path
) -> None:
    picture_file = tmp_path / "late.png"
    rows = [("a", str(picture_file), "a cat"), ("b", str(tmp_path / "never.png"), "a dog")]
    schema = "uid string, image_path string, caption string"
    delta.overwrite(spark.createDataFrame(rows, schema), str(tmp_path / "pairs"))
    others = [("c", str(tmp_path / "nowhere.png"), "of another table")]
    delta.overwrite(spark.createDataFrame(others, schema), str(tmp_path / "others"))
    scores = str(tmp_path / "scores")
    options: dict[str, Any] = {
        "pairs": str(tmp_path / "pairs"),
        "scores": scores,
        "image_path_column": "image_path",
        "image_root": [str(tmp_path)],
    }
    assert run_score(**options | {"pairs": str(tmp_path / "others")})["rows"] == 1
    assert run_score(**options)["statuses"] == {"bad_image": 2}
    picture_file.write_bytes(GOOD[0])
    assert run_score(**options)["rows"] == 0
    assert run_score(**options, retry=["bad_image"])["statuses"] == {"bad_image": 1, "ok": 1}
    found = {row["uid"]: row for row in score_rows(spark, scores)}
    assert len(score_rows(spark, scores)) == len(found) == 3  # also the one of the other table
    assert found["a"]["status"] == "ok"
    assert found["a"]["itm"] is not None
    assert [found[uid]["attempts"] for uid in "abc"] == [2, 2, 1]
    assert run_score(**options, retry=["bad_image"], max_attempts=2)["rows"] == 0
    assert run_score(**options, retry=["bad_image"], max_attempts=3)["rows"] == 1
    assert {row["uid"]: row["attempts"] for row in score_rows(spark, scores)}["b"] == 3


def test_a_run_that_is_killed_while_it_retries_keeps_the_earlier_answers(
    spark: SparkSession, run_score: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = write(spark, tmp_path / "pairs", [("a", b"no image", "a cat"), *good_rows(3)])
    options: dict[str, Any] = {"pairs": pairs, "scores": str(tmp_path / "scores")}
    run_score(**options)

    def fail(*_: Any) -> int:
        raise RuntimeError("the machine is gone")

    monkeypatch.setattr(ScoresWriter, "commit", fail)
    with pytest.raises(RuntimeError):
        run_score(**options, retry=["bad_image"])
    monkeypatch.undo()
    assert len(score_rows(spark, options["scores"])) == 4
    assert run_score(**options, retry=["bad_image"])["statuses"] == {"bad_image": 1}
    rows = {row["uid"]: row for row in score_rows(spark, options["scores"])}
    assert (len(rows), rows["a"]["attempts"]) == (4, 2)
