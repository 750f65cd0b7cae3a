"""The filter job on real tables: reasons, funnel, copies."""

from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession
from tiny_scores import FUNNEL, METRICS, PAIRS, Write, pair, row, sha, summary

from jobs.filter import job
from jobs.filter.job import main
from jobs.tables import delta
from jobs.tables.filtered_pairs import write_filtered

pytestmark = pytest.mark.spark


def test_selection_has_each_row_once_with_its_reason(
    spark: SparkSession, write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = write("S", [*FUNNEL, row("best", 1.0, 1.0, scorer="s2")])
    target = str(tmp_path / "SEL")
    argv = ["--scores", scores, "--scorer", "s1", "--selection", target]
    argv += ["--rule", "match: ITM >= 66", "--rule", "top 75% of odf", "--rule", "itm_mode < 99"]
    assert main(argv) == 0
    done = summary(capsys)
    selection = delta.read(spark, target)
    first_failed = {row["uid"]: row["first_failed_rule"] for row in selection.collect()}
    assert selection.count() == len(FUNNEL) == done["rows"]
    assert first_failed == {
        "best": None,
        "cut": None,
        "dull": "top 75% of odf",
        "wrong": "match",
        "unsure": "top 75% of odf",
        "bad": "status:bad_image",
        None: "status:null_uid",
    }
    reasons = {row["uid"]: row["reason"] for row in selection.where("reason is not null").collect()}
    assert reasons == {
        "unsure": "no value of odf",
        "bad": "why bad_image",
        None: "why null_uid",
    }
    assert [row["keep"] for row in selection.orderBy("uid").collect()] == [
        uid in ("best", "cut") for uid in ["", "bad", "best", "cut", "dull", "unsure", "wrong"]
    ]
    rules = {row["uid"]: row["rules"] for row in selection.collect()}
    assert rules["wrong"] == {"match": False, "top 75% of odf": True, "itm_mode < 99": True}
    assert set(rules["bad"].values()) == {False}

    assert (done["kept"], done["kept_fraction"], done["repetitions"]) == (2, 2 / 7, 2)
    assert done["without_scores"] == {"bad_image": 1, "null_uid": 1}
    funnel = [(r["name"], r["passed"], r["failed_first"]) for r in done["rules"]]
    assert funnel == [("match", 4, 1), ("top 75% of odf", 3, 2), ("itm_mode < 99", 5, 0)]
    (cut,) = done["thresholds"]
    assert (cut["scored"], cut["taken"], cut["threshold"]) == (4, 3, 80.0)

    assert all(field.metadata.get("comment") for field in selection.schema)
    assert DeltaTable(target).protocol().min_reader_version == 1
    before = sorted(map(str, selection.collect()))
    assert main(argv) == 0
    assert sorted(map(str, delta.read(spark, target).collect())) == before
    assert main([*argv, "--combine", "or"]) == 0
    assert summary(capsys)["kept"] == 5


def test_filtered_pairs(
    spark: SparkSession, write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each kept pair is written once despite copies; other content with a kept uid is not."""
    scores = write(
        "S",
        [
            *FUNNEL,
            row("best", status="duplicate_uid", copy=1),
            row("cut", status="duplicate_uid", image_sha=sha(b"other")),
            row("gone", 99.0, 99.0),
        ],
    )
    rows = [pair(r["uid"]) for r in FUNNEL if r["uid"]]
    rows += [pair("best", source_path="o"), pair("best", source_path="q")]
    rows += [pair("cut", image=b"other"), pair("wrong"), pair("never scored")]
    pairs = write("P", rows, PAIRS)
    output = str(tmp_path / "F")
    argv = ["--scores", scores, "--selection", str(tmp_path / "SEL"), "--rule", "itm >= 66"]
    argv += ["--rule", "odf >= 50", "--pairs", pairs, "--output", output]
    for _ in range(2):
        assert main(argv) == 0
        done = summary(capsys)
        assert (done["kept"], done["output_rows"], done["kept_without_pair"]) == (3, 2, 1)
        filtered = delta.read(spark, output)
        assert [tuple(row) for row in filtered.orderBy("uid").select(*PAIR_COLUMNS).collect()] == [
            ("best", b"image best", "caption best", "o", sha(b"image best"), 90.0, 90.0, None),
            ("cut", b"image cut", "caption cut", "p", sha(b"image cut"), 80.0, 80.0, None),
        ]
    comments = {field.name: field.metadata.get("comment") for field in filtered.schema}
    assert all(comments[name] for name in METRICS)
    assert DeltaTable(output).protocol().min_reader_version == 1


def test_a_selection_that_another_run_replaces_meanwhile_is_told(
    write: Write,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scores = write("S", FUNNEL)
    pairs = write("P", [pair(r["uid"]) for r in FUNNEL if r["uid"]], PAIRS)
    argv = ["--scores", scores, "--selection", str(tmp_path / "SEL"), "--pairs", pairs]
    argv += ["--output", str(tmp_path / "F"), "--rule"]

    def meanwhile(*arguments: Any, **options: Any) -> int:
        monkeypatch.undo()
        assert main([*argv, "itm >= 50"]) == 0
        return write_filtered(*arguments, **options)

    monkeypatch.setattr(job, "write_filtered", meanwhile)
    assert main([*argv, "itm >= 66"]) == 1
    assert summary(capsys)["error"].startswith(f"another run has replaced {tmp_path / 'SEL'} mean")
    assert main([*argv, "itm >= 66"]) == 0


PAIR_COLUMNS = ("uid", "image", "caption", "source_path", "image_sha", "itm", "odf", "su")


def test_columns_of_other_names_and_image_paths(
    spark: SparkSession, write: Write, tmp_path: Path
) -> None:
    scores = write("S", FUNNEL)
    uids = [r["uid"] for r in FUNNEL if r["uid"]]
    rows = [{"key": u, "file": f"image {u}", "text": f"caption {u}", "note": "n"} for u in uids]
    rows[1]["text"] = "edited since"
    pairs = write("P", rows, "key string, file string, text string, note string")
    output = str(tmp_path / "F")
    argv = ["--scores", scores, "--selection", str(tmp_path / "SEL"), "--rule", "odf >= 50"]
    argv += ["--pairs", pairs, "--output", output, "--uid-column", "key"]
    assert main([*argv, "--caption-column", "text"]) == 2  # no column image
    assert not (tmp_path / "SEL").exists()
    assert main([*argv, "--caption-column", "text", "--image-path-column", "file"]) == 0
    filtered = delta.read(spark, output)
    hashes = ["image_sha", "caption_sha"]
    assert filtered.columns == ["key", "file", "text", "note", *hashes, *METRICS]
    assert {row["key"] for row in filtered.collect()} == {"best", "wrong"}


def test_no_rows(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--scores", write("S", []), "--selection", str(tmp_path / "SEL")]
    assert main([*argv, "--rule", "top 50% of itm"]) == 0
    done = summary(capsys)
    assert (done["rows"], done["kept"], done["kept_fraction"]) == (0, 0, None)
