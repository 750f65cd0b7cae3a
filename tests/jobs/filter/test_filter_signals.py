"""The filter job with joined tables, and with several rules to compare (what-if)."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession
from tiny_scores import FUNNEL, METRICS, PAIRS, Write, pair, row, sha, summary

from jobs.core.settings import conf_file
from jobs.filter.job import main
from jobs.tables import delta

pytestmark = pytest.mark.spark


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
    """A CSV on another key, Parquet, another scorer, the pairs; and counts of unmatched rows."""
    clip = {"best": 0.3, "cut": 0.1, "dull": 0.2, "wrong": 0.4, "elsewhere": 0.9}
    clip_rows = [row(uid, scorer="s2", clip_score=cosine) for uid, cosine in clip.items()]
    scores = write("S", [*FUNNEL, *clip_rows])
    lines = ["sha,size,origin,safe", f"{sha(b'image best')},007,web,TRUE"]
    lines += [f"{sha(b'image cut')},12.5,,false"] * 2 + ["cafe,1,book,true", ",2,book,true"]
    (tmp_path / "sizes.csv").write_text("\n".join(lines))
    repeats = spark.createDataFrame([("best", 1, 7), ("best", 1, 8)], "uid string, n int, m int")
    repeats.write.parquet(str(tmp_path / "repeats.parquet"))
    pairs = [pair(r["uid"]) for r in FUNNEL if r["uid"]] + [pair("best", source_path="a")]
    target, output = str(tmp_path / "SEL"), str(tmp_path / "F")
    argv = ["--scores", scores, "--scorer", "s1", "--selection", target, "--combine", "or"]
    argv += [
        "--signals",
        f"clip={scores} scorer s2",
        "--signals",
        str(tmp_path / "repeats.parquet"),
    ]
    argv += ["--signals", f"{tmp_path}/sizes.csv on image_sha=sha"]
    argv += ["--pairs", write("P", pairs, PAIRS), "--output", output]
    fused = "top 2 of 0.6*rank(itm) + 0.4*rank(clip_score) per source_path"
    rules = ["--rule", f"fused: {fused}", "--rule", "size <= 7 and sizes.SAFE and origin = 'web'"]
    rules += ["--rule", "repeats.n = 1", "--repeat", "3 where clip.clip_score >= 0.3"]
    assert main([*argv, *rules]) == 0
    done = summary(capsys)
    joins = {each["name"]: each for each in done["signals"]}
    counts = {n: (e["rows"], e["missing"], e["unused"]) for n, e in joins.items()}
    assert counts == {
        "clip": (5, 1, 1),
        "repeats": (2, 4, 0),
        "sizes": (5, 3, 2),
        "pairs": (7, 0, 0),
    }
    assert joins["pairs"]["disagreeing"] == 1
    selection = delta.read(spark, target)
    assert selection.columns[10:] == [
        *("rules", *METRICS, "clip_score", "source_path", "size", "safe", "origin", "n")
    ]
    rows = {r["uid"]: r for r in selection.collect()}
    assert {uid for uid, r in rows.items() if r["keep"]} == {"best", "cut", "wrong"}
    assert rows["best"]["rules"] == {
        "fused": True,
        "size <= 7 AND sizes.SAFE AND origin = 'web'": True,
        "repeats.n = 1": True,
    }
    assert [rows[uid]["repetitions"] for uid in ("best", "cut", "dull")] == [3, 1, 0]
    assert (done["repetitions"], rows["cut"]["size"], rows["best"]["safe"]) == (7, 12.5, True)
    assert (rows["best"]["source_path"], rows["unsure"]["clip_score"]) == ("a", None)
    assert rows["unsure"]["reason"] == "no value of clip_score"
    assert all(field.metadata.get("comment") for field in selection.schema)
    filtered = {r["uid"]: r["repetitions"] for r in delta.read(spark, output).collect()}
    assert filtered == {"best": 3, "cut": 1, "wrong": 3}

    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert main([*argv, "--rule", "repeats.m > 1"]) == 2
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
