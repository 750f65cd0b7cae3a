"""The filter job on real tables: exact cuts, reasons, funnel, copies, exit codes."""

import hashlib
import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from jobs import rules_spark, tables
from jobs.filter import FilterConfig, main
from jobs.rules import Best, Rule, parse_rule
from jobs.rules_spark import find_cuts, judge

pytestmark = pytest.mark.spark

METRICS = ("itm", "odf", "ctq", "su")
SCORES = (
    "uid string, scorer string, image_sha string, caption_sha string, copy int,"
    " itm float, odf float, ctq float, su float, itm_mode int,"
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


# --- cuts -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    rule: Rule
    values: list[float | None]


def adversarial(rng: random.Random, rows: int) -> list[float | None]:
    """Scores with ties, nulls, NaN, both zeros, infinities, neighbours one bit apart."""
    pools: list[list[float | None]] = [
        [0.0, -0.0, 1.0],
        [50.0],
        [math.inf, -math.inf, 0.0, 5e-324, 1e308, -1e308],
        [math.nextafter(66, 67), 66.0, math.nextafter(66, 65)],
        [float(value) for value in range(101)],
        [rng.uniform(0, 100) for _ in range(rows)],
        [0.0, *(1e9 + rng.random() * 1e-6 for _ in range(5))],
    ]
    holes: list[list[float | None]] = [[], [None], [math.nan], [None, math.nan], [None] * 50]
    pool = rng.choice(pools) + rng.choice(holes)
    return [rng.choice(pool) for _ in range(rows)]


def cases(rng: random.Random, tables_: int, rows: int) -> list[Case]:
    made = []
    for number in range(tables_):
        amount = rng.choice(
            [f"{rng.randint(0, 100)}%", f"{rng.uniform(0, 100):.3f}%", str(rng.randint(0, rows))]
        )
        text = f"{rng.choice(['top', 'bottom'])} {amount} of m{number}"
        made.append(Case(parse_rule(text), adversarial(rng, rows)))
    return made


def brute_force(case: Case, keys: list[Row], takes_part: list[bool]) -> set[str]:
    """What a best fraction keeps, by sorting everything."""
    best = case.rule.condition
    assert isinstance(best, Best)
    sign = -1 if best.direction == "top" else 1
    ranked = sorted(
        (sign * value, *key[:2], key["uid"])
        for key, value, included in zip(keys, case.values, takes_part, strict=True)
        if included and value is not None and not math.isnan(value)
    )
    amount = Fraction(best.amount)
    k = len(ranked) * amount // 100 if best.percent else amount
    return {uid for *_, uid in ranked[: int(k)]}


@pytest.mark.parametrize("collected_rows", [100_000, 5])
def test_best_fraction_equals_brute_force(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch, collected_rows: int
) -> None:
    """Many random tables side by side, as columns of one."""
    monkeypatch.setattr(rules_spark, "COLLECTED_ROWS", collected_rows)  # 5: bracket by quantiles
    rng = random.Random(collected_rows)
    rows = 120
    many = cases(rng, 16, rows)
    takes_part = [rng.random() < 0.9 for _ in range(rows)]
    uids = [f"uid-{number}" for number in range(rows)]
    fields = {f"m{number}": case.values for number, case in enumerate(many)}
    data = [
        (uid, "i", "c", 0, "ok" if included else "bad_image", None, *values)
        for uid, included, *values in zip(uids, takes_part, *fields.values(), strict=True)
    ]
    schema = (
        "uid string, image_sha string, caption_sha string, copy int, status string, reason string"
    )
    schema += "".join(f", {name} double" for name in fields)
    scores = spark.createDataFrame(data, schema).coalesce(2)
    rules = [case.rule for case in many]
    cuts = find_cuts(scores, rules)
    judged = judge(scores, rules, cuts, "and").select("uid", "rules").collect()
    keys = spark.createDataFrame([(u,) for u in uids], "uid string")
    hashed = keys.select(F.xxhash64("uid"), "uid").collect()
    for case in many:
        kept = {row["uid"] for row in judged if row["rules"][case.rule.name]}
        assert kept == brute_force(case, hashed, takes_part), case.rule.text
        (best,) = case.rule.bests()
        assert cuts[best].taken == len(kept)


def test_cut_is_independent_of_partitioning(spark: SparkSession) -> None:
    scores = spark.range(5000).selectExpr(
        "cast(id as string) as uid",
        "'i' as image_sha",
        "'c' as caption_sha",
        "0 as copy",
        "'ok' as status",
        "string(null) as reason",
        "cast(id % 7 as float) as m",
    )
    rules = [parse_rule("top 33.3% of m and not bottom 11 of m")]

    def kept(frame: DataFrame) -> set[str]:
        cuts = find_cuts(frame, rules)
        judged = judge(frame, rules, cuts, "and")
        return {row["uid"] for row in judged.where("keep").select("uid").collect()}

    one = kept(scores.coalesce(1))
    assert len(one) == 5000 * 333 // 1000
    assert kept(scores.repartition(7, F.rand(1)).sortWithinPartitions(F.rand(2))) == one


def test_rows_that_cannot_be_told_apart_are_refused(write: Write) -> None:
    scores = write("S", [row("a", 1.0), row("a", 1.0), row("b", 2.0)])
    config = ["--scores", scores, "--selection", scores + "-SEL", "--rule"]
    assert main([*config, "itm > 0"]) == 0  # no order needed
    assert main([*config, "top 2 of itm"]) == 2


def test_unknown_is_never_kept(spark: SparkSession) -> None:
    data = [row("null", None, 9.0), row("nan", math.nan, 9.0), row("low", 1.0), row("high", 3.0)]
    scores = spark.createDataFrame(data, SCORES)
    texts = {
        "itm >= 2": {"high"},
        "not itm >= 2": {"low"},
        "itm != 1": {"high"},
        "not top 50% of itm": {"low"},
        "itm >= 2 or odf > 0": set(),
        "itm >= 0": {"low", "high"},
    }
    for text, expected in texts.items():
        rules = [parse_rule(text)]
        judged = judge(scores, rules, find_cuts(scores, rules), "and").collect()
        assert {row["uid"] for row in judged if row["keep"]} == expected, text
        assert {row["uid"]: row["reason"] for row in judged}["nan"].startswith("no value of itm")


def test_stored_float_is_compared_as_a_double(spark: SparkSession) -> None:
    scores = spark.createDataFrame([row("a", 66.0, 66.1)], SCORES)
    rules = [parse_rule(text) for text in ("itm >= 66", "itm = 66", "odf < 66.1", "odf > 66.09")]
    (judged,) = judge(scores, rules, {}, "and").collect()
    assert set(judged["rules"].values()) == {True}


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

    assert (done["kept"], done["kept_fraction"]) == (2, 2 / 7)
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
        (["--rule", "uid > 3"], "column 'uid' holds string: a signal is a number\n  uid > 3\n  ^"),
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


def test_shipped_configuration_is_valid() -> None:
    from jobs.config import conf_file, parse

    options = ["--conf", str(conf_file("filter.yaml")), "--scores", "S", "--selection", "SEL"]
    config = parse(FilterConfig, options, "filter")
    assert [rule.name for rule in config.parsed_rules()] == ["match", "detail"]


def test_no_rows(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--scores", write("S", []), "--selection", str(tmp_path / "SEL")]
    assert main([*argv, "--rule", "top 50% of itm"]) == 0
    done = summary(capsys)
    assert (done["rows"], done["kept"], done["kept_fraction"]) == (0, 0, None)
