"""SQL: views, the ready-made queries, the SQL functions, comments on every column."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from pictures import encoded, picture
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from jobs.core.errors import UsageError
from jobs.evaluate.evaluation_table import EVALUATION
from jobs.query import job as query
from jobs.query import named_queries
from jobs.tables import delta
from jobs.tables.pairs import PAIRS
from jobs.tables.runs import RUNS
from jobs.tables.scores import SCORES_TABLE
from jobs.tables.signals import SIGNALS_TABLE
from jobs.tables.sql_views import JOINED, TABLES, create_views
from jobs.views import job as views
from udfs.core.metrics import METRICS
from udfs.models.model_config import ModelConfig
from udfs.spark import register_functions

SELECTION = (
    "uid string, image_sha string, caption_sha string, copy int, scorer string, status string,"
    " keep boolean, repetitions int, first_failed_rule string, reason string,"
    " rules map<string,boolean>, itm float, odf float, ctq float, su float"
)


def test_every_column_that_jobs_write_has_a_comment() -> None:
    for schema in (PAIRS, RUNS, SCORES_TABLE, SIGNALS_TABLE, EVALUATION):
        assert [field.name for field in schema if not field.metadata.get("comment")] == []


def test_each_query_has_a_description_and_its_tables() -> None:
    queries = named_queries.load()
    assert len(queries) >= 20
    assert all(query.about.endswith((".", "?")) for query in queries.values())
    assert all(query.tables and ";" not in query.sql for query in queries.values())
    assert queries["kept_by_source"].tables == ("pairs", "selection")
    assert queries["near_duplicates_kept"].tables == ("selection", "signals")
    with pytest.raises(UsageError, match="did you mean score_histogram"):
        named_queries.find("scores_histogram")


def rows(schema: T.StructType, *records: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [tuple(record.get(field.name) for field in schema) for record in records]


@pytest.fixture(scope="module")
def refs(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Tables of every kind: five pairs (one of them twice, one unscored), two scorers."""
    folder = tmp_path_factory.mktemp("sql")

    def key(number: int) -> dict[str, Any]:
        digest = spark.sql(
            f"SELECT sha2(CAST('image {number}' AS BINARY), 256),"
            f" sha2(CAST('caption {number % 4}' AS BINARY), 256)"
        ).first()
        assert digest is not None
        return {"uid": f"u{number}", "image_sha": digest[0], "caption_sha": digest[1]}

    keys = [key(number) for number in range(5)]
    pairs = [
        {**keys[n], "image": f"image {n}".encode(), "caption": f"caption {n % 4}"}
        | {"source_path": ("/d/0.tar#1.jpg", "/d/a/2.jpg")[n % 2]}
        for n in (0, 1, 2, 3, 4, 1)
    ]
    scores = []
    for n, scorer, shift in ((0, "s1", 0), (1, "s1", 0), (2, "s1", 0), (0, "s2", 5), (1, "s2", 5)):
        metrics = {"itm": 30.0 * n + shift, "odf": 100.0 - n, "ctq": 95.0, "su": 50.0}
        scores.append({**keys[n], "scorer": scorer, "copy": 0, "status": "ok", **metrics})
        scores[-1] |= {"itm_entropy": float(n), "itm_mode": 30 * n}
    scores.append({**keys[1], "scorer": "s1", "copy": 1, "status": "duplicate_uid"})
    scores.append({**keys[3], "scorer": "s1", "copy": 0, "status": "bad_image", "reason": "why"})
    selection = [
        {**keys[n], "copy": 0, "keep": n < 3, "repetitions": (1, 2, 1, 0)[n], "itm": 30.0 * n}
        | {"first_failed_rule": None if n < 3 else "r", "rules": {"r": n < 3, "q": True}}
        for n in range(4)
    ]
    selection.append(
        {**keys[1], "copy": 1, "keep": False, "first_failed_rule": "status:duplicate_uid"}
    )
    signals = [
        {**keys[n], "language": ("en", "de")[n % 2], "near_image_of": "u0" if n == 2 else None}
        for n in range(5)
    ]
    run = {"run_id": "r1", "job": "score", "started_at": datetime(2025, 1, 31, tzinfo=UTC)}
    run |= {"seconds": 7200.0, "rows": 4, "seconds_by_stage": {"model": 1.26}}
    agreement = {"metric": "itm", "scorer": "s1", "statistics": "agreement", "kind": "all"}
    contents: dict[str, tuple[T.StructType | str, list[dict[str, Any]]]] = {
        "pairs": (PAIRS, pairs),
        "scores": (SCORES_TABLE, scores),
        "selection": (SELECTION, selection),
        "signals": (SIGNALS_TABLE, signals),
        "runs": (RUNS, [run]),
        "evaluation": (EVALUATION, [agreement | {"spearman": 0.5}]),
    }
    paths = {}
    for name, (columns, records) in contents.items():
        schema = spark.createDataFrame([], columns).schema
        ref = str(folder / ("scores_runs" if name == "runs" else name))
        delta.overwrite(spark.createDataFrame(rows(schema, *records), schema), ref)
        paths[name] = ref
    return paths


def flags(refs: dict[str, str], *names: str) -> list[str]:
    return [word for name in names or refs for word in (f"--{name}", refs[name])]


@pytest.mark.spark
def test_views_have_each_pair_once_for_each_scorer(
    spark: SparkSession, refs: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert create_views(spark, **refs) == [*TABLES, *JOINED]
    scored = spark.table("scored_pairs")
    found = sorted((r["uid"], r["scorer"], r["itm"]) for r in scored.collect() if r["scorer"])
    assert found == [
        *[("u0", "s1", 0.0), ("u0", "s2", 5.0)],
        *[("u1", "s1", 30.0)] * 2,
        *[("u1", "s2", 35.0)] * 2,
        *[("u2", "s1", 60.0), ("u3", "s1", None)],
    ]
    assert scored.where("scorer IS NULL").select("uid").collect() == [("u4",)]
    assert scored.schema["itm"].metadata["comment"].startswith("image-text matching")
    assert spark.table("selected_pairs").count() == 6

    spark.sql("CREATE SCHEMA stored_views")
    try:
        argv = ["--output", "stored_views", *flags(refs, "pairs", "scores")]
        assert views.main([*argv, "--dry-run"]) == 0
        assert spark.sql("SHOW VIEWS IN stored_views").where("NOT isTemporary").isEmpty()
        for _ in range(2):
            assert views.main(argv) == 0
        stored = spark.table("stored_views.scored_pairs")
        assert stored.count() == scored.count()
        assert stored.schema["caption"].metadata["comment"] == "the caption"
        assert views.main(["--output", "stored_views", "--scores", refs["runs"] + "x"]) == 2
        assert views.main(["--output", "stored_views"]) == 2
        own = {"pairs": refs["runs"], "scores": refs["scores"]}
        assert views.main(["--output", "stored_views", *flags(own)]) == 2  # no columns to join on
    finally:
        spark.sql("DROP SCHEMA stored_views CASCADE")
    capsys.readouterr()


@pytest.mark.spark
def test_every_named_query_runs(spark: SparkSession, refs: dict[str, str]) -> None:
    create_views(spark, **refs)
    found: dict[str, list[dict[str, Any]]] = {}
    for name, named_query in named_queries.load().items():
        found[name] = [row.asDict() for row in spark.sql(named_query.sql).collect()]
        assert found[name], f"{name} finds nothing in tables that have rows for it"
    by_status = {(r["scorer"], r["status"]): r["rows"] for r in found["rows_by_status"]}
    assert by_status == {
        **{("s1", "ok"): 3, ("s1", "duplicate_uid"): 1, ("s1", "bad_image"): 1, ("s2", "ok"): 2}
    }
    histogram = [r for r in found["score_histogram"] if (r["scorer"], r["metric"]) == ("s1", "odf")]
    assert [(r["from_score"], r["rows"]) for r in histogram] == [(90, 3)]
    assert [r["uid"] for r in found["best_pairs"]][:2] == ["u2", "u1"]
    assert found["worst_pairs"][0]["uid"] == "u0"
    assert found["top_by_weighted_rank"][0]["uid"] == "u2"
    curve = {r["threshold"]: r["kept"] for r in found["threshold_curve"] if r["scorer"] == "s1"}
    assert curve == {0: 3, 30: 2, 60: 1}
    sources = {(r["scorer"], r["source"]): r["rows"] for r in found["means_by_source"]}
    assert sources["s1", "/d/0.tar"] == 2
    assert sources["s1", "/d/a"] == 3
    drift = {r["metric"]: r for r in found["scorer_drift"]}
    assert (drift["itm"]["mean_change"], drift["itm"]["rows"]) == (5.0, 2)
    assert drift["odf"]["mean_absolute_change"] == 0.0
    assert found["unscored_pairs"] == [{"rows": 9, "unscored": 1}]
    assert found["shared_captions"][0]["images"] == 2
    assert {r["fate"]: r["rows"] for r in found["funnel"]} == {
        **{"kept": 3, "r": 1, "status:duplicate_uid": 1}
    }
    assert [(r["rule"], r["rows"]) for r in found["failed_by_one_rule"]] == [("r", 1)]
    assert {r["source"]: r["kept"] for r in found["kept_by_source"]} == {"/d/0.tar": 2, "/d/a": 2}
    assert [(r["repetitions"], r["samples"]) for r in found["repetitions"]] == [(1, 2), (2, 2)]
    assert {r["language"]: r["kept"] for r in found["kept_by_language"]} == {"en": 2, "de": 1}
    (near,) = found["near_duplicates_kept"]
    assert (near["image"], near["uids"]) == ("u0", ["u0", "u2"])
    assert found["runs_by_speed"][0]["hours"] == 2.0


@pytest.mark.spark
def test_failures_are_counted_by_reason(spark: SparkSession) -> None:
    sizes = [(f"u{n}", "bad_image", f"image file of {n}23 bytes at 0x7f{n}a") for n in (4, 2, 9, 7)]
    spark.createDataFrame(
        [
            *sizes,
            ("u9", "bad_image", "image file of 1 bytes at 0xff"),
            ("u10", "bad_image", "cannot read a cat.jpg: no such file"),
            ("u11", "bad_image", "cannot read s3://x/2.png: no such file"),
            ("u12", "bad_image", "3/4 of /data/1.tar, s3://x/2: cut off"),
            ("u1", "model_error", "shape of 3 and 3e8cdeadbeef"),
            (None, "null_uid", "the pair has no uid"),
            ("u0", "ok", None),
            ("u0", "caption_truncated", "of 512 tokens"),
        ],
        "uid string, status string, reason string",
    ).withColumn("scorer", F.lit("s")).createOrReplaceTempView("scores")
    found = spark.sql(named_queries.find("failures").sql).collect()
    assert [tuple(row)[1:] for row in found] == [
        ("bad_image", "image file of N bytes at N", 5, ["u2", "u4", "u7"]),
        ("bad_image", "cannot read PATH: no such file", 2, ["u10", "u11"]),
        ("bad_image", "N/N of PATH, PATH: cut off", 1, ["u12"]),
        ("model_error", "shape of N and N", 1, ["u1"]),
        ("null_uid", "the pair has no uid", 1, []),
    ]


@pytest.mark.spark
def test_the_query_job(
    spark: SparkSession, refs: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert query.main(["--name", "runs_by_speed", *flags(refs, "scores")]) == 0
    out, err = capsys.readouterr()
    line = json.loads(out.splitlines()[-1])
    assert line["rows"][0]["run_id"] == "r1"
    assert "rows_per_second" in err
    assert query.main(["--sql", "SELECT count(*) AS n FROM scores;", *flags(refs, "scores")]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"] == [{"n": 7}]
    assert query.main([]) == 0
    assert "score_histogram  (--scores)" in capsys.readouterr().err
    for options, message in (
        (["--name", "funel"], "did you mean funnel?"),
        (["--name", "funnel"], "funnel needs --selection"),
        (["--sql", "SELECT nothing FROM scores", *flags(refs, "scores")], "nothing"),
        (["--sql", "SELEC 1"], "SELEC"),
        (["--sql", "SELECT 1", "--name", "funnel"], "exclude each other"),
    ):
        assert query.main(options) == 2
        err = capsys.readouterr().err
        assert message in err
        assert "Traceback" not in err


@pytest.mark.spark
def test_sql_functions_give_the_scores_of_the_model(spark: SparkSession, tmp_path: Path) -> None:
    config = ModelConfig(str(tiny_models.llava(tmp_path)))
    assert len(register_functions(spark, config)) == 2 + len(METRICS)
    data = [(encoded(picture(40, 30, n), "JPEG"), f"caption {n}") for n in range(2)]
    frame = spark.createDataFrame([*data, (b"<html>", "x")], "image binary, caption string")
    frame.createOrReplaceTempView("few_pairs")
    results = spark.sql(
        "SELECT mlm_scores(image, caption) AS all_columns, mlm_score(image, caption) AS metrics,"
        " mlm_itm(image, caption) AS itm, mlm_su(image, caption) AS su FROM few_pairs"
    ).collect()
    for row in results[:2]:
        assert row["metrics"].asDict() == {m: row["all_columns"][m] for m in METRICS}
        assert (row["itm"], row["su"]) == (row["all_columns"]["itm"], row["all_columns"]["su"])
        assert 0 <= row["itm"] <= 100
    assert results[2]["all_columns"]["status"] == "bad_image"
    assert (set(results[2]["metrics"]), results[2]["itm"]) == ({None}, None)
