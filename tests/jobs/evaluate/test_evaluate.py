"""The evaluate job on real tables: every rated caption is compared or counted."""

import csv
import hashlib
import json
import math
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pyspark.sql import SparkSession
from scipy import stats

from jobs.evaluate.job import main
from jobs.tables import delta

pytestmark = pytest.mark.spark

METRICS = ("itm", "odf", "ctq", "su")
SCORES = (
    "uid string, scorer string, image_sha string, caption_sha string, copy int, itm float,"
    " odf float, ctq float, su float, itm_mode int, odf_mode int, ctq_mode int, su_mode int,"
    " status string, scored_at timestamp"
)
KINDS = ("alt", "altered", "other_book")

Row = dict[str, Any]
Evaluate = Callable[..., tuple[int, Row]]


@pytest.fixture
def evaluate(spark: SparkSession, capsys: pytest.CaptureFixture[str]) -> Evaluate:
    """evaluate(*args) -> exit code and the line of JSON."""

    def run(*args: object) -> tuple[int, Row]:
        code = main([str(arg) for arg in args])
        line: Row = json.loads(capsys.readouterr().out.splitlines()[-1])
        return code, line

    return run


def rated(images: int = 30) -> list[Row]:
    """Three captions of each image, of three kinds, with ratings of four metrics."""
    rng = np.random.default_rng(0)
    return [
        {"uid": f"uid-{i:03}", "caption": f"{kind} über {i}", "kind": kind}
        | {metric: int(rng.integers(0, 101)) for metric in METRICS}
        for i in range(images)
        for kind in KINDS
    ]


def scored(row: Row, scorer: str, noise: float, **other: Any) -> Row:
    """A row of a scores table, near the ratings of `row`."""
    seed = int(hashlib.sha256(f"{scorer} {row['caption']}".encode()).hexdigest()[:8], 16)
    values = np.random.default_rng(seed).normal([row[m] for m in METRICS], noise).clip(0, 100)
    return {
        "uid": row["uid"],
        "scorer": scorer,
        "image_sha": "",
        "caption_sha": hashlib.sha256(row["caption"].encode()).hexdigest(),
        "copy": 0,
        **dict(zip(METRICS, values.tolist(), strict=True)),
        **{f"{m}_mode": round(v / 10) * 10 for m, v in zip(METRICS, values, strict=True)},
        "status": "ok",
        "scored_at": datetime(2025, 1, 31),
        **other,
    }


def failed(row: Row, scorer: str, status: str) -> Row:
    null_scores = dict.fromkeys([*METRICS, *(f"{m}_mode" for m in METRICS)])
    return scored(row, scorer, 0) | null_scores | {"status": status}


def write_jsonl(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))
    return path


def write_csv(path: Path, rows: list[Row]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def results(output: Path) -> dict[tuple[str, str, str, str], Row]:
    """The results in evaluation.json, by scorer, column, metric and kind."""
    document = json.loads((output / "evaluation.json").read_text())
    found = {
        (r["scorer"], r["score_column"], r["metric"], r["kind"]): r for r in document["results"]
    }
    assert len(found) == len(document["results"])
    return found


QUICK = ("--resamples", 50)


def test_every_rated_caption_is_compared_or_counted(
    spark: SparkSession, evaluate: Evaluate, tmp_path: Path
) -> None:
    rows = rated()
    ratings = [*rows, {"uid": None, "caption": "no uid", "kind": "alt", "itm": 5}]
    ratings += [{"uid": "uid-none", "caption": "unknown", "kind": "alt", "itm": 50, "odf": 101}]
    ratings += [rows[0] | {"itm": rows[0]["itm"] + 2}]  # rated twice: the mean counts
    scores = [scored(row, "aaaa0000", 5) for row in rows[6:]]
    scores += [scored(rows[0] | {"caption": "another"}, "aaaa0000", 5)]
    scores += [failed(rows[3], "aaaa0000", "bad_image")]
    scores += [failed(rows[6], "aaaa0000", "model_error")]  # an older attempt
    scores += [scored(rows[7], "aaaa0000", 90, scored_at=datetime(2024, 1, 1))]  # outdated
    scores += [scored(row, "bbbb0000", 40) for row in rows]
    delta.overwrite(spark.createDataFrame(scores, SCORES).repartition(5), str(tmp_path / "scores"))
    clip = [{"uid": r["uid"], "caption": r["caption"], "clip_score": r["itm"] / 300} for r in rows]

    code, line = evaluate(
        *("--ratings", write_jsonl(tmp_path / "ratings.jsonl", ratings)),
        *("--scores", f"mine={tmp_path / 'scores'}"),
        *("--scores", write_csv(tmp_path / "clip.csv", clip)),
        *("--auc", "itm:alt+altered/other_book", "--pairs-won", "odf:alt/altered"),
        *("--output", tmp_path / "out", *QUICK),
    )
    assert code == 0, line
    assert line["captions"] == len(rows) + 1
    uses = line["ratings_by_use"]
    assert (uses["ratings"], uses["null_uid"], uses["out_of_range"]) == (4 * 93, 4, 1)
    assert (uses["no_rating"], uses["used"], uses["averaged"]) == (2, 4 * 91 + 1, 4)
    a, b, c = line["scorers"]
    assert [s["scorer"] for s in (a, b, c)] == ["mine aaaa0000", "mine bbbb0000", "clip"]
    assert a["without_scores"] == {"bad_image": 1, "not_in_scores": 1, "other_caption": 5}
    assert a["scored"] == 84
    assert a["several_rows"] == 2
    assert b["without_scores"] == c["without_scores"] == {"not_in_scores": 1}

    found = results(tmp_path / "out")
    expected = {
        (s["scorer"], s["uid"], s["caption_sha"]): s for s in scores if s["itm"] is not None
    }
    for row in rows[7:8]:  # has two rows of scores: the newer one counts
        new = scored(row, "aaaa0000", 5)
        expected["aaaa0000", new["uid"], new["caption_sha"]] = new
    for label, scorer in (("mine aaaa0000", "aaaa0000"), ("mine bbbb0000", "bbbb0000")):
        for metric in METRICS:
            for column in (metric, f"{metric}_mode"):
                for kind in ("all", "altered"):
                    pairs = [
                        (expected[key][column], row[metric] + (row is rows[0] and metric == "itm"))
                        for row in rows
                        if kind in ("all", row["kind"])
                        for key in [(scorer, row["uid"], scored(row, "", 0)["caption_sha"])]
                        if key in expected
                    ]
                    got = found[label, column, metric, kind]
                    x, y = np.array(pairs, dtype=np.float32).T
                    assert got["n"] == len(pairs)
                    assert got["spearman"] == pytest.approx(stats.spearmanr(x, y).statistic)
                    assert got["kendall"] == pytest.approx(stats.kendalltau(x, y).statistic)
                    error = np.abs(x - y).mean()
                    assert got["mean_absolute_error"] == pytest.approx(error)
                    assert got["pearson_low"] < got["pearson"] < got["pearson_high"]
    assert found["mine aaaa0000", "itm", "itm", "all"]["left_out"] == 7
    signal = found["clip", "clip_score", "itm", "all"]
    assert signal["spearman"] == pytest.approx(1, abs=1e-3)  # one rating is a mean
    assert signal["mean_absolute_error"] is None
    assert {key[2] for key in found if key[0] == "clip"} == {"itm", "odf"}
    check = found["mine bbbb0000", "itm", "itm", "alt+altered/other_book"]
    assert (check["statistics"], check["n"], check["n_second"]) == ("auc", 60, 30)
    first, second = (
        [expected["bbbb0000", r["uid"], scored(r, "", 0)["caption_sha"]]["odf"] for r in rows[i::3]]
        for i in (0, 1)
    )
    won = [(x > y) + (x == y) / 2 for x, y in zip(first, second, strict=True)]
    assert 0.0 in first + second  # so that there may be ties, of scores clipped to 0
    assert found["mine bbbb0000", "odf", "odf", "alt/altered"]["share"] == np.mean(won)

    table = delta.read(spark, str(tmp_path / "out" / "evaluation"))
    assert all(field.metadata["comment"] for field in table.schema)
    stored = {(r["scorer"], r["score_column"], r["metric"], r["kind"]): r for r in table.collect()}
    assert stored.keys() == found.keys()
    for key, row in found.items():
        assert (stored[key]["n"], stored[key]["spearman"]) == (row["n"], row.get("spearman"))
        assert len(stored[key]["calibration"] or []) == len(row.get("calibration", []))
    text = (tmp_path / "out" / "evaluation.md").read_text()
    assert "| mine aaaa0000 | score " in text
    assert "1 bad_image, 1 not_in_scores, 5 other_caption" in text
    with Image.open(tmp_path / "out" / "evaluation.png") as picture:
        assert picture.width > 800
    assert not list((tmp_path / "out").glob("*.part"))


def test_long_and_wide_ratings_are_the_same_in_any_format_and_order(
    spark: SparkSession, evaluate: Evaluate, tmp_path: Path
) -> None:
    rows = rated()
    scores = [scored(row, "only", 20) for row in rows]
    delta.overwrite(spark.createDataFrame(scores, SCORES), str(tmp_path / "scores"))
    long = [
        {"uid": r["uid"], "caption": r["caption"], "kind": r["kind"]}
        # people's ratings from 1 to 5, by two raters who are a point apart
        | {"metric": m.upper(), "rating": 1 + 4 * r[m] / 100 + side / 100, "rater": f"r{side}"}
        for r in rows
        for m in METRICS
        for side in (-1, 1)
        if 0.5 < r[m] < 99.5
    ]
    wide = [r | {m: r[m] if 0.5 < r[m] < 99.5 else math.nan for m in METRICS} for r in rows]
    write_jsonl(tmp_path / "wide.jsonl", wide)
    shuffled = [long[i] for i in np.random.default_rng(1).permutation(len(long))]
    write_csv(tmp_path / "long.csv", shuffled)
    spark.createDataFrame(shuffled).repartition(7).write.parquet(str(tmp_path / "long"))
    found = []
    for ratings in ("wide.jsonl", "long.csv", "long"):
        scale = () if ratings == "wide.jsonl" else ("--rating-low", 1, "--rating-high", 5)
        args = ("--ratings", tmp_path / ratings, "--scores", tmp_path / "scores", *QUICK, *scale)
        code, line = evaluate(*args, "--output", tmp_path / ratings.replace(".", "-"))
        assert code == 0, line
        assert line["ratings_by_use"]["averaged"] == (
            0 if ratings == "wide.jsonl" else len(long) // 2
        )
        found.append(results(tmp_path / ratings.replace(".", "-")))
    assert found[0] == found[1] == found[2]  # to the last bit


def test_tables_without_captions(spark: SparkSession, evaluate: Evaluate, tmp_path: Path) -> None:
    """If one table has no captions, rows are matched by uid alone."""
    rows = rated(20)
    plain = [{"uid": r["uid"], "itm": r["itm"]} for r in rows[::3]]  # one caption a uid
    spark.createDataFrame(plain).write.parquet(str(tmp_path / "plain"))
    captioned = [scored(row, "s", 10) for row in [*rows[::3], rows[1]]]
    delta.overwrite(spark.createDataFrame(captioned, SCORES), str(tmp_path / "captioned"))
    unrated = [{"uid": r["uid"], "kind": r["kind"]} for r in rows[::3]]
    unrated += [{"uid": "elsewhere", "kind": "junk"}]
    output = ("--output", tmp_path / "out", *QUICK)

    ratings = write_csv(tmp_path / "ratings.csv", plain)
    args = ("--ratings", ratings, *output, "--scores", tmp_path / "plain")
    code, line = evaluate(*args, "--scores", tmp_path / "captioned", "--limit", 15)
    assert code == 0, line
    same, other = line["scorers"]
    assert (same["scored"], same["spearman"]) == (15, {"itm score": 1.0})
    assert other["without_scores"] in ({}, {"several_captions": 1})
    code, line = evaluate(*args, "--scores", tmp_path / "captioned", "--dry-run")
    assert line["scorers"][1]["without_scores"] == {"several_captions": 1}

    ratings = write_csv(tmp_path / "unrated.csv", unrated)
    code, line = evaluate("--ratings", ratings, *output, "--scores", tmp_path / "plain")
    assert code == 2
    assert "neither columns metric and rating nor any of itm" in line["error"]
    check_only = ("--scores", tmp_path / "plain", "--auc", "itm:alt/junk")
    code, line = evaluate("--ratings", ratings, *output, *check_only)
    assert code == 0, line
    (check,) = results(tmp_path / "out").values()
    assert (check["n"], check["n_second"], check["left_out"]) == (20, 0, 1)
    assert check["share"] is None
    assert check["reason"] == "one of the two sets has no scores"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--signal", "itm=clip_scor"], "no column clip_scor; did you mean clip_score?"),
        (["--signal", "imt=clip_score"], "no metric imt; did you mean itm?"),
        (["--auc", "itm:alt/other_bok"], "no kind other_bok; did you mean other_book?"),
        (["--uid-column", "uids"], "has no column uids; did you mean uid?"),
        (["--group-column", "kinds"], "has no column kinds; did you mean kind?"),
        (["--scores", "more=nowhere"], "--scores nowhere: there is no such table or file"),
        (["--pairs-won", "odf=alt/altered"], "expected metric:kind+kind/kind+kind"),
        (["--scores", "b=bare.csv"], "did you mean item?"),
        (["--max-rows", "5"], "--max-rows 5"),
        (["--resamplse", "5"], "did you mean --resamples?"),
    ],
)
def test_bad_usage_names_the_nearest_and_writes_nothing(
    evaluate: Evaluate,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    args: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = rated(2)
    ratings = write_jsonl(tmp_path / "ratings.jsonl", rows)
    clip = [{"uid": r["uid"], "caption": r["caption"], "clip_score": 0.1} for r in rows]
    scores = write_csv(tmp_path / "clip.csv", clip)
    write_csv(tmp_path / "bare.csv", [{"uid": "a", "item": 1}])
    output = tmp_path / "out"
    code, line = evaluate(
        "--ratings", ratings, "--scores", scores, "--output", output, *QUICK, *args
    )
    assert code == 2, line
    assert message in line["error"]
    assert not output.exists()
