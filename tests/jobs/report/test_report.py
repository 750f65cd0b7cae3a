"""The report job on real tables: its figures are SQL's, its pictures those that they should be."""

import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_report
from deltalake import DeltaTable
from pictures import encoded, picture
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from jobs.report import job as report
from jobs.report.example_pictures import plan
from jobs.report.figures import signals_of
from jobs.report.rule_boundaries import line_of
from jobs.tables import delta
from jobs.tables.scores import SCORES_TABLE
from udfs.report.thumbnails import MOST_PICTURES

SELECTION = (
    "uid string, image_sha string, caption_sha string, copy int, scorer string, status string,"
    " keep boolean, repetitions int, first_failed_rule string, reason string,"
    " rules map<string,boolean>, itm float, odf float, ctq float, su float, aspect double"
)
PAIRS = "uid string, image binary, caption string, image_sha string, caption_sha string"
SIGNALS = ("itm", "odf", "ctq", "su", "aspect", "clip_score")


def tables_at(spark: SparkSession, folder: Path) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Selection, scores and pairs of the sample pairs with awkward values; and the same as rows."""
    rows = tiny_report.rows()
    awkward = [math.nan, math.inf, -math.inf, -0.0, 0.0, 1e-9, 7.0, None]
    for number, row in enumerate(rows):
        row |= {m: row[m] and float(np.float32(row[m])) for m in ("itm", "odf", "ctq", "su")}
        row["clip_score"] = row["clip_score"] and float(np.float32(row["clip_score"]))
        row["aspect"] = awkward[number] if number < len(awkward) else number / 7
        caption_sha = hashlib.sha256(row["caption"].encode()).hexdigest()
        row |= {"image_sha": f"i{row['file']}", "caption_sha": caption_sha}
        row |= {"scorer": "s1", "copy": 0}
    tiny_report.judged(rows)
    at = {name: str(folder / name) for name in ("selection", "scores", "pairs")}
    # A dict of Python's has no order for Spark; the map that filter writes has that of the rules.
    entries = SELECTION.replace("map<string,boolean>", "array<struct<key:string,value:boolean>>")
    listed = [{**row, "rules": list(row["rules"].items())} for row in reversed(rows)]
    frame = spark.createDataFrame(listed, entries, verifySchema=False)
    frame = frame.withColumn("rules", F.map_from_entries("rules"))
    delta.overwrite(frame.repartition(3), at["selection"])
    scores = spark.createDataFrame(
        [[{**r, "attempts": 1}.get(f.name) for f in SCORES_TABLE] for r in rows], SCORES_TABLE
    )
    delta.overwrite(scores, at["scores"])
    images = {row["file"]: encoded(picture(seed=n)) for n, row in enumerate(rows)}
    images[rows[0]["file"]] = b"<html>"
    pairs = [{**row, "image": images[row["file"]]} for row in rows]
    delta.overwrite(spark.createDataFrame(pairs, PAIRS, verifySchema=False), at["pairs"])
    rows[0]["aspect"] = None  # NaN counts as no value
    return at, rows


def rounded(value: Any) -> Any:
    """Floats to 9 digits: sums over partitions come in any order."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.9g}") if isinstance(value, float) else value


@pytest.mark.spark
def test_the_figures_are_those_of_sql(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at, rows = tables_at(spark, tmp_path)
    output = tmp_path / "out" / "report.html"
    options = [part for name, path in at.items() for part in (f"--{name}", path)]
    assert report.main([*options, "--output", str(output), "--pictures", "3"]) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    page = output.read_text(encoding="utf-8")
    assert line["bytes"] == len(page.encode()) < 5_000_000
    block = re.search(r'type="application/json" id="figures">(.*?)</script>', page, re.S)
    assert block
    figures = json.loads(block.group(1))

    # Against plain Python over the same rows, all of it.
    expected = tiny_report.figures(rows, SIGNALS) | {"notes": []}
    told = {key: value for key, value in figures.items() if key not in ("run", "pictures")}
    del expected["run"]
    assert rounded(told) == rounded(expected)

    # Against SQL on the same tables.
    spark.read.format("delta").load(at["selection"]).createOrReplaceTempView("sel")
    itm, aspect = (
        next(s for s in figures["signals"] if s["name"] == name) for name in ("itm", "aspect")
    )
    reaching = [
        f"count_if({s['name']} >= {t!r}D AND NOT isnan({s['name']}) AND status = 'ok')"
        for s in (itm, aspect)
        for t in s["thresholds"]
    ]
    counts = ["count(*)", "count_if(keep)", "count_if(status = 'ok')", "sum(repetitions)"]
    (found,) = spark.sql(
        f"SELECT {', '.join(counts + reaching)}, corr(itm, odf) FROM sel"
    ).collect()
    assert list(found)[:4] == [figures[key] for key in ("rows", "kept", "scored", "repetitions")]
    assert list(found)[4:-1] == itm["rows_at_or_above"] + aspect["rows_at_or_above"]
    assert found[-1] == pytest.approx(figures["correlations"]["pearson"][0][1], abs=1e-9)
    bars = spark.sql(
        "SELECT least(floor(itm / 5), 19) * 5 AS low, count(*), count_if(keep) FROM sel"
        " WHERE itm IS NOT NULL GROUP BY low ORDER BY low"
    ).collect()
    assert [tuple(bar) for bar in bars] == [
        (b["from"], b["rows"], b["kept"]) for b in itm["bins"] if b["rows"]
    ]
    funnel = spark.sql("SELECT first_failed_rule, count(*) FROM sel GROUP BY 1").collect()
    fates = {fate: count for fate, count in funnel}
    assert fates == {
        None: figures["kept"],
        "status:bad_image": figures["rows"] - figures["scored"],
        **{rule["name"]: rule["failed_first"] for rule in figures["rules"]},
    }

    # The pictures: by value, then by the hash of the uid, whatever the table's order.
    hashes: dict[str, int] = dict(spark.sql("SELECT uid, xxhash64(uid) FROM sel").collect())
    scored = [row for row in rows if row["status"] == "ok"]

    def first(some: list[dict[str, Any]], signal: str, ascending: bool) -> list[str]:
        sign = 1 if ascending else -1
        order = sorted(some, key=lambda r: (sign * r[signal], hashes[r["uid"]]))
        return [row["uid"] for row in order[:3]]

    lines = {shown["title"]: shown for shown in figures["pictures"]}
    assert list(lines) == ["itm >= 60", "top 30% of ctq", "itm", "odf", "ctq", "su", "clip_score"]
    for rule, signal in (("itm >= 60", "itm"), ("top 30% of ctq", "ctq")):
        passing = [row for row in scored if row["rules"][rule]]
        failing = [row for row in scored if not row["rules"][rule]]
        assert lines[rule]["signal"] == signal
        assert lines[rule]["strips"] == {
            "last to pass": first(passing, signal, True),
            "first to fail": first(failing, signal, False),
        }
    assert lines["su"]["strips"] == {
        "best": first(scored, "su", False),
        "worst": first(scored, "su", True),
    }
    by_uid = {row["uid"]: row for row in rows}
    uids = [uid for shown in lines.values() for strip in shown["strips"].values() for uid in strip]
    broken = sum(by_uid[uid]["file"] == rows[0]["file"] for uid in uids)
    assert page.count("data:image/webp") == len(uids) - broken
    assert page.count("not an image of a known format (an HTML page)") == broken
    assert broken > 0

    # Bad input: exit code 2, one line, nothing written.
    mine = tmp_path / "mine.html"
    mine.write_text("mine")
    selection = ["--selection", at["selection"]]
    for wrong, why in (
        ([*selection, "--output", str(mine)], "exists and is no report"),
        ([*selection, "--output", str(tmp_path)], "is a folder"),
        (["--selection", at["pairs"], "--output", str(tmp_path / "n.html")], "not a selection"),
    ):
        assert report.main(wrong) == 2
        assert why in capsys.readouterr().err
    assert mine.read_text() == "mine"
    assert sorted(path.name for path in output.parent.iterdir()) == ["report.html"]
    assert DeltaTable(at["selection"]).version() == 0


def group(rows: int, verdicts: list[bool], **values: tuple[float, float]) -> dict[str, Any]:
    """Rows of one fate as jobs/report/figures.py groups them; values are (low, high)."""
    found: dict[str, Any] = {"rows": rows, "scored": True, "verdicts": verdicts}
    for name, (low, high) in values.items():
        found |= {f"low:{name}": low, f"high:{name}": high, f"finite:{name}": rows}
        found[f"sum:{name}"] = rows * (low + high) / 2
    return found


def test_a_rules_line_is_found_by_what_it_did() -> None:
    groups: Any = [
        group(5, [True, True, True], itm=(60, 90), su=(10, 40)),
        group(5, [True, False, True], itm=(60, 70), su=(40, 95)),
        group(9, [False, False, True], itm=(1, 60), su=(41, 99)),
    ]
    names = ["a", "b", "all"]
    a, b, all_pass = (line_of(name, names, groups, ["itm", "su"]) for name in names)
    assert a
    assert (a.signal, a.ascending, a.exact) == ("itm", True, True)  # 60 on both sides: ties
    assert b
    assert (b.signal, b.ascending, b.exact) == ("su", False, True)
    assert all_pass is None
    groups[2] |= {"low:su": 20, "sum:su": 9 * 60}
    assert (mixed := line_of("b", names, groups, ["itm", "su"]))
    assert not mixed.exact


@pytest.mark.parametrize(("rules", "each"), [(1, 6), (12, 6), (500, 20)])
def test_many_rules_make_no_endless_page(rules: int, each: int) -> None:
    groups: Any = [group(5, [True], itm=(60, 90)), group(5, [False], itm=(1, 50))]
    line = line_of("a", ["a"], groups, ["itm"])
    assert line
    made, fewer = plan([line] * rules, ["itm", "aspect", "su"], each)
    assert sum(2 * fewer for _ in made) <= MOST_PICTURES
    assert [gallery.title for gallery, _ in made[-2:]] == ["itm", "su"]
    assert len(made) == rules + 2 or fewer == 2


def test_signals_are_the_numbers_metrics_first() -> None:
    kinds = {"uid": T.StringType(), "copy": T.IntegerType(), "keep": T.BooleanType()}
    kinds |= {"aspect": T.DoubleType(), "su": T.FloatType(), "itm": T.FloatType()}
    schema = T.StructType([T.StructField(name, kind) for name, kind in kinds.items()])
    assert signals_of(schema) == ["su", "itm", "aspect"]
