"""The report job on real tables: figures are compared with SQL, pictures with plain Python."""

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
from jobs.report.rule_boundaries import boundary_of
from jobs.tables import delta
from jobs.tables.scores import SCORES_TABLE
from udfs.report.thumbnails import MAX_PICTURES

SELECTION = (
    "uid string, image_sha string, caption_sha string, copy int, scorer string, status string,"
    " keep boolean, repetitions int, first_failed_rule string, reason string,"
    " rules map<string,boolean>, itm float, odf float, ctq float, su float, aspect double"
)
PAIRS = "uid string, image binary, caption string, image_sha string, caption_sha string"
SIGNALS = ("itm", "odf", "ctq", "su", "aspect", "clip_score")


def tables_at(spark: SparkSession, folder: Path) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """Tables of the sample pairs with awkward values (selection, scores, pairs), and their rows."""
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
    paths = {name: str(folder / name) for name in ("selection", "scores", "pairs")}
    # Spark ignores the order of a Python dict; the map that filter writes is in the rules' order.
    entries = SELECTION.replace("map<string,boolean>", "array<struct<key:string,value:boolean>>")
    listed = [{**row, "rules": list(row["rules"].items())} for row in reversed(rows)]
    frame = spark.createDataFrame(listed, entries, verifySchema=False)
    frame = frame.withColumn("rules", F.map_from_entries("rules"))
    delta.overwrite(frame.repartition(3), paths["selection"])
    scores = spark.createDataFrame(
        [[{**r, "attempts": 1}.get(f.name) for f in SCORES_TABLE] for r in rows], SCORES_TABLE
    )
    delta.overwrite(scores, paths["scores"])
    images = {row["file"]: encoded(picture(seed=n)) for n, row in enumerate(rows)}
    images[rows[0]["file"]] = b"<html>"
    pairs = [{**row, "image": images[row["file"]]} for row in rows]
    delta.overwrite(spark.createDataFrame(pairs, PAIRS, verifySchema=False), paths["pairs"])
    rows[0]["aspect"] = None  # NaN counts as no value
    return paths, rows


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
    paths, rows = tables_at(spark, tmp_path)
    output = tmp_path / "out" / "report.html"
    options = [part for name, path in paths.items() for part in (f"--{name}", path)]
    assert report.main([*options, "--output", str(output), "--pictures", "3"]) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    page = output.read_text(encoding="utf-8")
    assert line["bytes"] == len(page.encode()) < 5_000_000
    block = re.search(r'type="application/json" id="figures">(.*?)</script>', page, re.S)
    assert block
    figures = json.loads(block.group(1))

    # Against plain Python over the same rows, all of it.
    expected = tiny_report.figures(rows, SIGNALS) | {"notes": []}
    counted = {key: value for key, value in figures.items() if key not in ("run", "pictures")}
    del expected["run"]
    assert rounded(counted) == rounded(expected)

    # Against SQL on the same tables.
    spark.read.format("delta").load(paths["selection"]).createOrReplaceTempView("sel")
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
    assert {first_failed: count for first_failed, count in funnel} == {
        None: figures["kept"],
        "status:bad_image": figures["rows"] - figures["scored"],
        **{rule["name"]: rule["failed_first"] for rule in figures["rules"]},
    }

    # The pictures: by value, then by the hash of the uid, regardless of the table's order.
    hashes: dict[str, int] = dict(spark.sql("SELECT uid, xxhash64(uid) FROM sel").collect())
    scored = [row for row in rows if row["status"] == "ok"]

    def first_uids(candidates: list[dict[str, Any]], signal: str, ascending: bool) -> list[str]:
        sign = 1 if ascending else -1
        order = sorted(candidates, key=lambda r: (sign * r[signal], hashes[r["uid"]]))
        return [row["uid"] for row in order[:3]]

    galleries = {gallery["title"]: gallery for gallery in figures["pictures"]}
    assert list(galleries) == [
        "itm >= 60",
        "top 30% of ctq",
        "itm",
        "odf",
        "ctq",
        "su",
        "clip_score",
    ]
    for rule, signal in (("itm >= 60", "itm"), ("top 30% of ctq", "ctq")):
        passing = [row for row in scored if row["rules"][rule]]
        failing = [row for row in scored if not row["rules"][rule]]
        assert galleries[rule]["signal"] == signal
        assert galleries[rule]["strips"] == {
            "last to pass": first_uids(passing, signal, True),
            "first to fail": first_uids(failing, signal, False),
        }
    assert galleries["su"]["strips"] == {
        "best": first_uids(scored, "su", False),
        "worst": first_uids(scored, "su", True),
    }
    by_uid = {row["uid"]: row for row in rows}
    strips = [strip for gallery in galleries.values() for strip in gallery["strips"].values()]
    uids = [uid for strip in strips for uid in strip]
    broken = sum(by_uid[uid]["file"] == rows[0]["file"] for uid in uids)
    assert page.count("data:image/webp") == len(uids) - broken
    assert page.count("not an image of a known format (an HTML page)") == broken
    assert broken > 0

    # Bad input: exit code 2, one line, nothing written.
    other_page = tmp_path / "other.html"
    other_page.write_text("not a report")
    selection = ["--selection", paths["selection"]]
    for options, message in (
        ([*selection, "--output", str(other_page)], "exists and is not a report"),
        ([*selection, "--output", str(tmp_path)], "is a folder"),
        (["--selection", paths["pairs"], "--output", str(tmp_path / "n.html")], "not a selection"),
    ):
        assert report.main(options) == 2
        assert message in capsys.readouterr().err
    assert other_page.read_text() == "not a report"
    assert sorted(path.name for path in output.parent.iterdir()) == ["report.html"]
    assert DeltaTable(paths["selection"]).version() == 0


def group(rows: int, verdicts: list[bool], **values: tuple[float, float]) -> dict[str, Any]:
    """A group of rows with the same verdicts, as in jobs/report/figures.py; values: (low, high)."""
    columns: dict[str, Any] = {"rows": rows, "scored": True, "verdicts": verdicts}
    for name, (low, high) in values.items():
        columns |= {f"low:{name}": low, f"high:{name}": high, f"finite:{name}": rows}
        columns[f"sum:{name}"] = rows * (low + high) / 2
    return columns


def test_a_rules_boundary_is_found_from_its_verdicts() -> None:
    groups: Any = [
        group(5, [True, True, True], itm=(60, 90), su=(10, 40)),
        group(5, [True, False, True], itm=(60, 70), su=(40, 95)),
        group(9, [False, False, True], itm=(1, 60), su=(41, 99)),
    ]
    names = ["a", "b", "all"]
    a, b, all_pass = (boundary_of(name, names, groups, ["itm", "su"]) for name in names)
    assert a
    assert (a.signal, a.ascending, a.exact) == ("itm", True, True)  # 60 on both sides: ties
    assert b
    assert (b.signal, b.ascending, b.exact) == ("su", False, True)
    assert all_pass is None
    groups[2] |= {"low:su": 20, "sum:su": 9 * 60}
    assert (mixed := boundary_of("b", names, groups, ["itm", "su"]))
    assert not mixed.exact


@pytest.mark.parametrize(("rules", "each"), [(1, 6), (12, 6), (500, 20)])
def test_many_rules_do_not_make_an_endless_page(rules: int, each: int) -> None:
    groups: Any = [group(5, [True], itm=(60, 90)), group(5, [False], itm=(1, 50))]
    boundary = boundary_of("a", ["a"], groups, ["itm"])
    assert boundary
    plans, fewer = plan([boundary] * rules, ["itm", "aspect", "su"], each)
    assert sum(2 * fewer for _ in plans) <= MAX_PICTURES
    assert [gallery.title for gallery, _ in plans[-2:]] == ["itm", "su"]
    assert len(plans) == rules + 2 or fewer == 2


def test_signals_are_the_numeric_columns_metrics_first() -> None:
    types = {"uid": T.StringType(), "copy": T.IntegerType(), "keep": T.BooleanType()}
    types |= {"aspect": T.DoubleType(), "su": T.FloatType(), "itm": T.FloatType()}
    schema = T.StructType([T.StructField(name, data_type) for name, data_type in types.items()])
    assert signals_of(schema) == ["su", "itm", "aspect"]
