"""Scoring tables from strangers: paths that lead elsewhere, fuzzed rows, text for the terminal."""

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from fuzzed_rows import fuzzed_rows
from pyspark.sql import SparkSession
from tiny_pairs import GOOD, Score, good_rows, score_rows, write

from jobs.query.job import main as query
from jobs.score.job import main as score
from jobs.tables import delta
from udfs.core.metrics import METRICS

pytestmark = pytest.mark.spark


def test_no_path_of_a_table_leads_out_of_the_root(
    spark: SparkSession, run_score: Score, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "good.jpg").write_bytes(GOOD[0])
    (tmp_path / "x").write_bytes(GOOD[0])
    (root / "link.jpg").symlink_to(tmp_path / "x")
    os.mkfifo(root / "fifo.jpg")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        port = listener.getsockname()[1]
        paths = [
            *("/etc/passwd", "file:///proc/self/environ", f"{root}/link.jpg", f"{root}/../x"),
            *(f"{root}/fifo.jpg", "/dev/zero", f"http://127.0.0.1:{port}/a", "hdfs://h/a"),
            f"s3://k:s3cr3t@b/x?endpoint_override=127.0.0.1:{port}",
        ]
        rows = [(f"bad-{n}", path, "a cat") for n, path in enumerate(paths)]
        rows.append(("good", str(root / "good.jpg"), "a cat"))
        frame = spark.createDataFrame(rows, "uid string, path string, caption string")
        delta.overwrite(frame.coalesce(1), str(tmp_path / "pairs"))
        pairs, scores = str(tmp_path / "pairs"), str(tmp_path / "scores")
        options: dict[str, Any] = {"pairs": pairs, "scores": scores, "image_path_column": "path"}
        started = time.monotonic()
        statuses = run_score(**options, image_root=[str(root)])["statuses"]
        assert time.monotonic() - started < 60  # a pipe would hold it for ever
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert statuses == {"bad_image": len(paths), "ok": 1}
    found = {row["uid"]: row for row in score_rows(spark, scores)}
    assert found["good"]["itm"] is not None
    for number in range(len(paths)):
        assert "s3cr3t" not in str(found[f"bad-{number}"])
        assert found[f"bad-{number}"]["reason"].startswith("cannot read ")
    argv = ["--pairs", pairs, "--scores", scores, "--image-path-column", "path"]
    assert score(argv) == 2
    assert "needs --image-root, the folder or URI below which" in capsys.readouterr().err


@pytest.mark.parametrize("count", [400, pytest.param(10_000, marks=pytest.mark.long)])
def test_good_rows_are_scored_as_without_the_fuzzed_ones(
    spark: SparkSession, run_score: Score, tmp_path: Path, count: int
) -> None:
    good = good_rows(max(20, count // 20))
    alone, among = str(tmp_path / "alone"), str(tmp_path / "among")
    run_score(pairs=write(spark, tmp_path / "good", good), scores=alone)
    rows = [*good, *fuzzed_rows(count, seed=count)]
    summary = run_score(pairs=write(spark, tmp_path / "rows", rows), scores=among)
    assert sum(summary["statuses"].values()) == len(rows)
    expected = {row["uid"]: row for row in score_rows(spark, alone)}
    found = {row["uid"]: row for row in score_rows(spark, among)}
    assert len(found) == len(rows)
    for uid, row in expected.items():
        assert [found[uid][m] for m in METRICS] == pytest.approx(
            [row[m] for m in METRICS], abs=1e-6
        )
    reasons = [row["reason"] for row in found.values() if row["reason"]]
    assert all(map(str.isprintable, reasons))


def test_what_a_row_says_does_not_command_the_terminal(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "\x1b[2J\x1b]0;title\x07\u202egpj\nmlm-filter query: all rows passed"
    frame = spark.createDataFrame([(evil, evil)], "uid string, caption string")
    delta.overwrite(frame, str(tmp_path / "pairs"))
    assert query(["--pairs", str(tmp_path / "pairs"), "--sql", "SELECT * FROM pairs"]) == 0
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert all(line.isprintable() for line in lines)
    assert not any(line.startswith("mlm-filter") for line in lines)
    assert json.loads(out)["rows"] == [{"uid": evil, "caption": evil}]  # whole, in JSON's escapes
    assert out.isascii()
