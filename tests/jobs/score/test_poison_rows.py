"""Rows that end or hold the process that scores them, in a table."""

import json
from pathlib import Path
from typing import get_args

import pytest
from poison import SIGN
from pyspark.sql import SparkSession
from tiny_pairs import good_rows, score_rows, write

from jobs.score.job import main as score
from jobs.score.settings import ScoreConfig
from udfs.core.metrics import METRICS
from udfs.scoring.results import RETRIED


def test_what_another_try_may_score_can_be_retried() -> None:
    (statuses,) = get_args(ScoreConfig.model_fields["retry"].annotation)
    assert get_args(statuses) == RETRIED


@pytest.mark.spark
@pytest.mark.slow
def test_poison_rows_are_set_aside_and_all_others_scored(
    spark: SparkSession, scoring_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = good_rows(200)
    rows[20] = ("exit", f"{SIGN}exit".encode(), "a")
    rows[21] = ("hang", rows[21][1], f"{SIGN}spin")
    rows[150] = ("allocate", f"{SIGN}allocate".encode(), "a")
    pairs, scores = write(spark, tmp_path / "pairs", rows), str(tmp_path / "scores")
    argv = ["--pairs", pairs, "--scores", scores, "--model", scoring_model]
    assert score([*argv, "--batch-timeout", "3", "--batch-memory", "256"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["statuses"] == {"crashed": 2, "ok": 197, "timeout": 1}
    assert "--retry crashed scores such rows again" in err
    found = {row["uid"]: row for row in score_rows(spark, scores)}
    assert len(found) == 200
    three_times = "three times (twice alone)"
    assert {uid: row["reason"] for uid, row in found.items() if row["status"] != "ok"} == {
        "exit": f"decoding the image ended the process: exit code 7, {three_times}",
        "hang": "the model took more than 3 s",
        "allocate": f"decoding the image took more than 256 MiB of memory, {three_times}",
    }
    for row in found.values():
        assert (row["itm"] is None) == (row["status"] != "ok")
        assert all((row[metric] is None) == (row["itm"] is None) for metric in METRICS)
