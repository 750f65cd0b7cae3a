"""The filter job on real tables: reasons, funnel, copies, joined signals, what-if, exit codes."""

import hashlib
import json
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from jobs import tables
from jobs.config import conf_file
from jobs.filter import FilterConfig, main

pytestmark = pytest.mark.spark

METRICS = ("itm", "odf", "ctq", "su")
SCORES = (
    "uid string, scorer string, image_sha string, caption_sha string, copy int,"
    " itm float, odf float, ctq float, su float, clip_score float, itm_mode int,"
    " status string, reason string, scored_at timestamp"
)


def row(uid: str | None, *scores: float | None, status: str = "ok", **other: Any) -> dict[str, Any]:
    """A row of a scores table; the scores are itm, odf, ctq, su, as many as are given."""
    values = dict(zip(METRICS, [*scores, *[None] * 4][:4], strict=True))
    return {
        "uid": uid,
        "scorer": "s1",
        "image_sha": sha(f"image {uid}".encode()),
        "caption_sha": sha(f"caption {uid}".encode()),
        "copy": 0,
        **values,
        "clip_score": None,
        "itm_mode": None if values["itm"] is None else 50,
        "status": status,
        "reason": None if status == "ok" else f"why {status}",
        "scored_at": datetime(2025, 1, 31),
        **other,
    }


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


Write = Callable[..., str]


@pytest.fixture
def write(spark: SparkSession, tmp_path: Path) -> Write:
    """write(name, rows, schema) -> path of a Delta table."""

    def written(name: str, rows: list[dict[str, Any]], schema: str = SCORES) -> str:
        path = str(tmp_path / name)
        tables.overwrite(spark.createDataFrame(rows, schema), path)
        return path

    return written


# --- the job --------------------------------------------------------------------------------------

UNSCORED = [row("bad", status="bad_image"), row(None, status="null_uid")]
FUNNEL = [
    row("best", 90.0, 90.0),
    row("cut", 80.0, 80.0, status="caption_truncated"),
    row("dull", 70.0, 10.0),
    row("wrong", 10.0, 95.0),
    row("unsure", 75.0, None),
    *UNSCORED,
]


def summary(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return line


def test_selection_has_each_row_once_with_its_reason(
    spark: SparkSession, write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = write("S", [*FUNNEL, row("best", 1.0, 1.0, scorer="s2")])
    target = str(tmp_path / "SEL")
    argv = ["--scores", scores, "--scorer", "s1", "--selection", target]
    argv += ["--rule", "match: ITM >= 66", "--rule", "top 75% of odf", "--rule", "itm_mode < 99"]
    assert main(argv) == 0
    done = summary(capsys)
    selection = tables.read(spark, target)
    fates = {row["uid"]: row["first_failed_rule"] for row in selection.collect()}
    assert selection.count() == len(FUNNEL) == done["rows"]
    assert fates == {
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
    assert sorted(map(str, tables.read(spark, target).collect())) == before
    assert main([*argv, "--combine", "or"]) == 0
    assert summary(capsys)["kept"] == 5


PAIRS = "uid string, image binary, caption string, source_path string, itm string"


def pair(uid: str, **other: Any) -> dict[str, Any]:
    image, caption = f"image {uid}".encode(), f"caption {uid}"
    fields = {"uid": uid, "image": image, "caption": caption, "source_path": "p", "itm": "old"}
    return fields | other


def test_filtered_pairs(
    spark: SparkSession, write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each kept pair once, though there are copies; other content under a kept uid stays out."""
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
        filtered = tables.read(spark, output)
        assert [tuple(row) for row in filtered.orderBy("uid").select(*PAIR_COLUMNS).collect()] == [
            ("best", b"image best", "caption best", "o", sha(b"image best"), 90.0, 90.0, None),
            ("cut", b"image cut", "caption cut", "p", sha(b"image cut"), 80.0, 80.0, None),
        ]
    comments = {field.name: field.metadata.get("comment") for field in filtered.schema}
    assert all(comments[name] for name in METRICS)
    assert DeltaTable(output).protocol().min_reader_version == 1


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
    kept = tables.read(spark, output)
    hashes = ["image_sha", "caption_sha"]
    assert kept.columns == ["key", "file", "text", "note", *hashes, *METRICS]
    assert {row["key"] for row in kept.collect()} == {"best", "wrong"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rule", "itmm >= 3"], "no column 'itmm'; did you mean 'itm'?\n  itmm >= 3\n  ^"),
        (
            ["--rule", "uid > 3"],
            "cannot compare column 'uid' (text) with 3 (a number)\n  uid > 3\n  ^",
        ),
        (["--what-if", "top 3 of uid"], "column 'uid' holds text, and a number is needed here\n"),
        (["--rule", "itm > 3", "--repeat", "2 wher itm"], "not 'wher'\n  2 wher itm\n    ^"),
        (["--rule", "top 130% of itm"], "a percentage lies between 0 and 100"),
        (["--rule", "(itm > 3"], "this '(' is never closed\n  (itm > 3\n  ^"),
        (["--rule", ""], "the rule is empty"),
        ([], "missing --rule"),
        (["--rule", "itm > 3", "--rule", "itm>3"], "two rules are named 'itm > 3'"),
        (["--rule", "itm > 3"], "s1 (1 rows, 2025-01-31 to 2025-01-31), s2 (1 rows, 2025"),
        (["--rule", "itm > 3", "--scorer", "s3"], "has no scores of scorer s3; it has s1 (1 rows"),
        (["--rule", "itm > 3", "--limit", "3"], "--limit"),
        (["--rule", "itm > 3", "--pairs", "P"], "--pairs and --output go together"),
        (["--rule", "itm > 3", "--selection", "S"], "S is named twice"),
        (["--rule", "itm > 3", "--signals", "SEL"], "SEL is named twice"),
        (
            ["--rule", "itm > 3", "--signals", "nothing"],
            "--signals nothing: there is no such table",
        ),
        (["--rule", "itm > 3", "--signals", "other on sha"], "the scores table has no column sha"),
        (["--rule", "itm > 3", "--signals", "other on uid=key"], "the table has no column key"),
        (["--rule", "itm > 3", "--signals", "a=S", "--signals", "A=S"], "are called a: name one"),
        (
            ["--rule", "itm > 3", "--signals", "S"],
            'has several scorers; choose one: --signals "S=S',
        ),
        (["--rule", "o.itm > 3", "--signals", "o=other"], "no table 'o'"),
        (["--rule", "itm > 3", "--selection", "other"], "other is a table of another kind"),
        (
            ["--rule", "itm > 3", "--scores", "other"],
            "other is not a scores table: it has no column",
        ),
        (["--rule", "itm > 3", "--scores", "nothing"], "nothing: there is no Delta table"),
    ],
)
def test_bad_usage_exits_with_2_and_writes_nothing(
    write: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write("S", [row("a", 1.0), row("a", 1.0, scorer="s2")])
    write("other", [{"uid": "a"}], "uid string")
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert main(["--scores", "S", "--selection", "SEL", *options]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert "Traceback" not in printed.err
    assert json.loads(printed.out)["status"] == "usage_error"
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == before


def test_dry_run_counts_and_writes_nothing(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = write("S", FUNNEL)
    conf = tmp_path / "conf.yaml"
    conf.write_text("filter:\n  rule:\n  - match: itm >= 66\n  - top 2 of odf\n")
    argv = ["--conf", str(conf), "--scores", scores, "--selection", str(tmp_path / "SEL")]
    assert main([*argv, "--dry-run"]) == 0
    printed = capsys.readouterr()
    done = json.loads(printed.out)
    assert (done["dry_run"], done["kept"], done["rows"]) == (True, 1, 7)
    assert done["thresholds"][0]["threshold"] == 90.0
    assert "match: itm >= 66" in printed.err
    assert not (tmp_path / "SEL").exists()


def config_of(name: str, *options: str) -> FilterConfig:
    from jobs.config import parse

    given = ["--conf", str(conf_file(name)), "--scores", "S", "--selection", "SEL", *options]
    return parse(FilterConfig, given, "filter")


def test_shipped_configurations_are_valid() -> None:
    assert [rule.name for rule in config_of("filter.yaml").parsed_rules()] == ["match", "detail"]
    (rule,) = config_of("datacomp_clip_score.yaml").parsed_rules()
    assert str(rule) == "datacomp 30% of clip_l14_similarity_score"


# --- other tables ---------------------------------------------------------------------------------

SIGNALS = (
    "uid string, image_sha string, caption_sha string, language string, caption_words int,"
    " caption_characters int, shorter_side int, aspect_ratio double, duplicate boolean"
)


def signal(uid: str, *values: Any) -> dict[str, Any]:
    names = [field.split()[0] for field in SIGNALS.split(", ")[3:]]
    given = [*values, *("en", 3, 6, 200, 3.0, False)[len(values) :]]
    keys = {"uid": uid, "image_sha": sha(f"image {uid}".encode())}
    keys["caption_sha"] = sha(f"caption {uid}".encode())
    return keys | dict(zip(names, given, strict=True))


def test_datacomps_basic_filter(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """English, more than 2 words and 5 characters, shorter side >= 200, aspect ratio <= 3."""
    fails = {
        "german": ("de",),
        "unknown": (None,),
        "two words": ("en", 2),
        "five characters": ("en", 3, 5),
        "small": ("en", 3, 6, 199),
        "long": ("en", 3, 6, 200, 3.0000000000000004),
        "no image": ("en", 3, 6, None, None),
    }
    rows = [signal("just so"), *(signal(uid, *values) for uid, values in fails.items())]
    scores = write("S", [row(each["uid"], 1.0) for each in rows] + [row("nowhere", 1.0)])
    argv = ["--conf", str(conf_file("datacomp_basic_filter.yaml")), "--scores", scores]
    argv += ["--signals", write("signals", rows, SIGNALS), "--selection", str(tmp_path / "SEL")]
    assert main(argv) == 0
    done = summary(capsys)
    assert done["kept"] == 1
    passed = {each["name"]: each["passed"] for each in done["rules"]}
    assert passed == {"english": 6, "words": 7, "characters": 7, "size": 6, "shape": 6}
    (joined,) = done["signals"]
    assert (joined["rows"], joined["missing"], joined["unused"]) == (8, 1, 0)


def test_joined_signals(
    spark: SparkSession, write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A CSV by another key, Parquet, the scores of another scorer, the pairs; and what is lost."""
    clip = {"best": 0.3, "cut": 0.1, "dull": 0.2, "wrong": 0.4, "elsewhere": 0.9}
    both = [row(uid, scorer="s2", clip_score=cosine) for uid, cosine in clip.items()]
    scores = write("S", [*FUNNEL, *both])
    lines = ["sha,size,origin,safe", f"{sha(b'image best')},007,web,TRUE"]
    lines += [f"{sha(b'image cut')},12.5,,false"] * 2 + ["cafe,1,book,true", ",2,book,true"]
    (tmp_path / "sizes.csv").write_text("\n".join(lines))
    odd = spark.createDataFrame([("best", 1, 7), ("best", 1, 8)], "uid string, n int, m int")
    odd.write.parquet(str(tmp_path / "odd.parquet"))
    pairs = [pair(r["uid"]) for r in FUNNEL if r["uid"]] + [pair("best", source_path="a")]
    target, output = str(tmp_path / "SEL"), str(tmp_path / "F")
    argv = ["--scores", scores, "--scorer", "s1", "--selection", target, "--combine", "or"]
    argv += ["--signals", f"clip={scores} scorer s2", "--signals", str(tmp_path / "odd.parquet")]
    argv += ["--signals", f"{tmp_path}/sizes.csv on image_sha=sha"]
    argv += ["--pairs", write("P", pairs, PAIRS), "--output", output]
    fused = "top 2 of 0.6*rank(itm) + 0.4*rank(clip_score) per source_path"
    rules = ["--rule", f"fused: {fused}", "--rule", "size <= 7 and sizes.SAFE and origin = 'web'"]
    rules += ["--rule", "odd.n = 1", "--repeat", "3 where clip.clip_score >= 0.3"]
    assert main([*argv, *rules]) == 0
    done = summary(capsys)
    joins = {each["name"]: each for each in done["signals"]}
    counts = {n: (e["rows"], e["missing"], e["unused"]) for n, e in joins.items()}
    assert counts == {
        "clip": (5, 1, 1),
        "odd": (2, 4, 0),
        "sizes": (5, 3, 2),
        "pairs": (7, 0, 0),
    }
    assert joins["pairs"]["disagreeing"] == 1
    selection = tables.read(spark, target)
    assert selection.columns[10:] == [
        *("rules", *METRICS, "clip_score", "source_path", "size", "safe", "origin", "n")
    ]
    rows = {r["uid"]: r for r in selection.collect()}
    assert {uid for uid, r in rows.items() if r["keep"]} == {"best", "cut", "wrong"}
    assert rows["best"]["rules"] == {
        "fused": True,
        "size <= 7 AND sizes.SAFE AND origin = 'web'": True,
        "odd.n = 1": True,
    }
    assert [rows[uid]["repetitions"] for uid in ("best", "cut", "dull")] == [3, 1, 0]
    assert (done["repetitions"], rows["cut"]["size"], rows["best"]["safe"]) == (7, 12.5, True)
    assert (rows["best"]["source_path"], rows["unsure"]["clip_score"]) == ("a", None)
    assert rows["unsure"]["reason"] == "no value of clip_score"
    assert all(field.metadata.get("comment") for field in selection.schema)
    filtered = {r["uid"]: r["repetitions"] for r in tables.read(spark, output).collect()}
    assert filtered == {"best": 3, "cut": 1, "wrong": 3}

    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert main([*argv, "--rule", "odd.m > 1"]) == 2
    assert "1 keys have several rows with different values (uid 'best')" in capsys.readouterr().err
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == before


def test_what_if(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = write("S", FUNNEL)
    conf = tmp_path / "conf.yaml"
    conf.write_text("filter:\n  rule: [itm >= 66, odf >= 50]\n  what_if:\n  - a: itm >= 66\n")
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert main(["--conf", str(conf), "--scores", scores]) == 0
    printed = capsys.readouterr()
    regions = json.loads(printed.out)["what_if"]["regions"]
    assert regions[1:] == [{"rules": ["a", "rules"], "rows": 2}, {"rules": [], "rows": 1}]
    options = ["--what-if", "a: itm >= 66", "--what-if", "b: top 2 of odf", "--what-if", "su > 0"]
    assert main(["--scores", scores, *options]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)["what_if"]
    assert [(each["name"], each["passed"]) for each in found["rules"]] == [
        *(("a", 4), ("b", 2), ("su > 0", 0))
    ]
    assert found["scored"] == 5
    assert found["pairs"] == [
        {"rules": ["a", "b"], "both": 1, "either": 5, "jaccard": 0.2},
        {"rules": ["a", "su > 0"], "both": 0, "either": 4, "jaccard": 0.0},
        {"rules": ["b", "su > 0"], "both": 0, "either": 2, "jaccard": 0.0},
    ]
    assert found["regions"] == [
        {"rules": ["a"], "rows": 3},
        {"rules": ["b"], "rows": 1},
        {"rules": ["a", "b"], "rows": 1},
    ]
    assert re.search(r"\na and b +1 +5 +0\.200\n", printed.err)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == before


def test_no_rows(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--scores", write("S", []), "--selection", str(tmp_path / "SEL")]
    assert main([*argv, "--rule", "top 50% of itm"]) == 0
    done = summary(capsys)
    assert (done["rows"], done["kept"], done["kept_fraction"]) == (0, 0, None)
