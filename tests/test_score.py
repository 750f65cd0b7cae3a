"""The score job on real Spark, Delta and a real (tiny) model: each row once, whatever happens."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from deltalake import DeltaTable
from pictures import encoded, picture
from pyspark.sql import Row, SparkSession
from pyspark.sql import functions as F
from test_images import DAMAGED

from jobs import filter as filter_job
from jobs import pairs as pairs_module
from jobs import score, score_plan, tables
from jobs.errors import UsageError
from jobs.filter import FilterConfig
from jobs.score_plan import File
from udfs import spark as shells
from udfs.metrics import METRICS
from udfs.models import ModelConfig

pytestmark = pytest.mark.spark

Score = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_models.llava(tmp_path_factory.mktemp("llava")))


@pytest.fixture
def run(spark: SparkSession, model: str) -> Score:
    def run_score(**options: Any) -> dict[str, Any]:
        return score.run(spark, score.ScoreConfig(**({"model": model} | options)))

    return run_score


GOOD = [encoded(picture(40 + i, 30 + i, i), "JPEG") for i in range(20)]


def write(spark: SparkSession, folder: Path, rows: list[Any], files: int = 3) -> str:
    """A pairs table; captions are given as bytes, so that they may hold anything."""
    raw = [(u, i, c.encode() if isinstance(c, str) else c) for u, i, c in rows]
    frame = spark.createDataFrame(raw, "uid string, image binary, caption binary")
    frame = frame.withColumn("caption", F.col("caption").cast("string")).repartition(files)
    tables.overwrite(frame, str(folder), skipping=("uid",))
    return str(folder)


def answers(spark: SparkSession, scores: str) -> list[Row]:
    return tables.read(spark, scores).collect()


def good_rows(count: int) -> list[Any]:
    return [
        (f"uid-{i:04}", GOOD[i % 20], f"caption number {i} " * (1 + i % 5)) for i in range(count)
    ]


def damaged_rows() -> tuple[list[Any], dict[str, str]]:
    """100 rows of 25 kinds of damage, and the status that each uid must get."""
    kinds: list[tuple[str, Any, Any, str]] = [
        (name, data, "a caption", "bad_image") for name, (data, _) in DAMAGED.items()
    ]
    kinds += [
        ("null_caption", GOOD[0], None, "empty_caption"),
        ("blank_caption", GOOD[0], " \n\t", "empty_caption"),
        ("no_caption", GOOD[0], "", "empty_caption"),
        ("nul_bytes", GOOD[0], "a\x00cat\x00", "ok"),
        ("lone_surrogate", GOOD[0], b"a \xed\xa0\x80 cat", "ok"),
        ("not_utf8", GOOD[0], b"caf\xe9", "ok"),
        ("megabyte", GOOD[0], "word " * 200_000, "caption_truncated"),
        ("special_tokens", GOOD[0], "<image><|im_end|><image>", "ok"),
        ("one_pixel", encoded(picture(1, 1)), "a caption", "ok"),
        ("thin", encoded(picture(1, 5000)), "a caption", "ok"),
        ("both_bad", b"<html>", None, "bad_image"),
        ("emoji", GOOD[0], "\U0001f408" * 30, "ok"),
    ]
    rows, expected = [], {}
    for i in range(100 // len(kinds) + 1):
        for name, image, caption, status in kinds:
            uid = f"{name}-{i}"
            rows.append((uid, image, caption))
            expected[uid] = status
    return rows[:100], {uid: expected[uid] for uid, _, _ in rows[:100]}


def test_a_thousand_pairs_with_a_tenth_damaged(
    spark: SparkSession, run: Score, tmp_path: Path
) -> None:
    damaged, expected = damaged_rows()
    good = good_rows(890)
    twice = [good[0], good[0], (good[1][0], GOOD[5], "other words"), *[(None, GOOD[0], "a")] * 7]
    rows = good + damaged + twice
    assert len(rows) == 1000
    pairs = write(spark, tmp_path / "pairs", rows)
    summary = run(pairs=pairs, scores=str(tmp_path / "scores"))
    found = answers(spark, str(tmp_path / "scores"))
    assert len(found) == summary["rows"] == 1000
    statuses = Counter(row["status"] for row in found)
    assert statuses == summary["statuses"]
    assert statuses["duplicate_uid"] == 3
    assert statuses["null_uid"] == 7
    assert statuses["model_error"] == 0
    by_uid = {row["uid"]: row for row in found if row["status"] != "duplicate_uid"}
    assert {uid: by_uid[uid]["status"] for uid in expected} == expected
    assert all(by_uid[uid]["status"] == "ok" for uid, _, _ in good)
    for row in found:
        has_scores = [row[metric] is not None and 0 <= row[metric] <= 100 for metric in METRICS]
        assert all(has_scores) == (row["status"] in ("ok", "caption_truncated"))
        assert any(has_scores) == all(has_scores)
        assert (row["reason"] is None) == (row["status"] == "ok")

    again = run(pairs=pairs, scores=str(tmp_path / "scores"))
    assert again["rows"] == 0
    assert len(answers(spark, str(tmp_path / "scores"))) == 1000

    plain = DeltaTable(str(tmp_path / "scores")).to_pyarrow_table()  # a reader that is not Spark
    assert plain.num_rows == 1000
    assert {"uid", "itm", "odf", "ctq", "su", "status"} <= set(plain.column_names)
    last = tables.read(spark, str(tmp_path / "scores_runs")).orderBy("started_at").first()
    assert last is not None
    assert last["rows_by_status"] == summary["statuses"]
    assert set(last["seconds_by_stage"]) == {"load", "decode", "wait", "model"}
    assert json.loads(last["parameters"])["pairs"] == pairs
    assert last["versions"]["torch"]


def test_scores_do_not_depend_on_partitions_or_batches(
    spark: SparkSession, run: Score, tmp_path: Path
) -> None:
    rows = good_rows(150)
    one = write(spark, tmp_path / "one", rows, files=1)
    seven = write(spark, tmp_path / "seven", rows[::-1], files=7)
    run(pairs=one, scores=str(tmp_path / "a"), partitions=1, batch_rows=32)
    run(pairs=seven, scores=str(tmp_path / "b"), partitions=7, batch_rows=1)
    a, b = (
        {row["uid"]: row for row in answers(spark, str(tmp_path / name))} for name in ("a", "b")
    )
    assert a.keys() == b.keys()
    assert len(a) == 150
    for uid, row in a.items():
        for metric in METRICS:
            assert abs(row[metric] - b[uid][metric]) < 1e-4


def test_slices_of_any_size_score_each_row_once(
    spark: SparkSession, run: Score, tmp_path: Path
) -> None:
    pairs = write(spark, tmp_path / "pairs", good_rows(120), files=4)
    run(pairs=pairs, scores=str(tmp_path / "scores"), slice_rows=13)
    found = Counter(row["uid"] for row in answers(spark, str(tmp_path / "scores")))
    assert len(found) == 120
    assert set(found.values()) == {1}
    assert tables.version(spark, str(tmp_path / "scores")) > 5  # several commits


def test_a_run_that_dies_is_taken_up_where_it_stopped(
    spark: SparkSession, run: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = write(spark, tmp_path / "pairs", good_rows(90), files=3)
    original = score._append
    appended: list[int] = []

    def dies(*arguments: Any) -> int:
        if len(appended) == 2:
            raise RuntimeError("the machine is gone")
        appended.append(original(*arguments))
        return appended[-1]

    monkeypatch.setattr(score, "_append", dies)
    with pytest.raises(RuntimeError):
        run(pairs=pairs, scores=str(tmp_path / "scores"), slice_rows=20)
    monkeypatch.undo()
    summary = run(pairs=pairs, scores=str(tmp_path / "scores"))
    assert summary["rows"] == 90 - sum(appended)
    found = [row["uid"] for row in answers(spark, str(tmp_path / "scores"))]
    assert sorted(found) == sorted(uid for uid, _, _ in good_rows(90))


def test_only_what_is_new_or_changed_is_scored(
    spark: SparkSession, run: Score, model: str, tmp_path: Path
) -> None:
    pairs = write(spark, tmp_path / "pairs", good_rows(30))
    scores = str(tmp_path / "scores")
    assert run(pairs=pairs, scores=scores, limit=10)["rows"] == 10
    assert run(pairs=pairs, scores=scores, limit=10)["rows"] == 0
    assert run(pairs=pairs, scores=scores)["rows"] == 20
    changed = good_rows(31)
    changed[3] = (changed[3][0], changed[3][1], "another caption")
    write(spark, tmp_path / "pairs", changed)
    assert run(pairs=pairs, scores=scores, dry_run=True)["rows"] == 2
    assert run(pairs=pairs, scores=scores)["rows"] == 2
    other = run(pairs=pairs, scores=scores, max_caption_tokens=16)  # another scorer
    assert other["rows"] == 31
    assert len(answers(spark, scores)) == 63


def test_failed_rows_are_scored_again_when_asked(
    spark: SparkSession, run: Score, tmp_path: Path
) -> None:
    picture_file = tmp_path / "late.png"
    rows = [("a", str(picture_file), "a cat"), ("b", str(tmp_path / "never.png"), "a dog")]
    frame = spark.createDataFrame(rows, "uid string, image_path string, caption string")
    tables.overwrite(frame, str(tmp_path / "pairs"))
    options: dict[str, Any] = {
        "pairs": str(tmp_path / "pairs"),
        "scores": str(tmp_path / "scores"),
        "image_path_column": "image_path",
    }
    assert run(**options)["statuses"] == {"bad_image": 2}
    picture_file.write_bytes(GOOD[0])
    assert run(**options)["rows"] == 0
    assert run(**options, retry=["bad_image"])["statuses"] == {"bad_image": 1, "ok": 1}
    found = {row["uid"]: row for row in answers(spark, str(tmp_path / "scores"))}
    assert len(found) == 2
    assert found["a"]["status"] == "ok"
    assert found["b"]["attempts"] == 2


def test_a_dual_encoder_scores_in_the_same_table_and_its_signal_filters(
    spark: SparkSession, run: Score, tmp_path: Path
) -> None:
    pairs = write(spark, tmp_path / "pairs", [*good_rows(30), *damaged_rows()[0][:40]])
    scores = str(tmp_path / "scores")
    run(pairs=pairs, scores=str(tmp_path / "new"), limit=20)
    # a table of an earlier version lacks the column that the dual encoder needs
    tables.overwrite(tables.read(spark, str(tmp_path / "new")).drop("clip_score"), scores)
    clip = str(tiny_models.clip(tmp_path / "clip"))
    summary = run(pairs=pairs, scores=scores, model=clip)
    assert summary["rows"] == 70
    rows = answers(spark, scores)
    assert len(rows) == 90
    found = [row for row in rows if row["scorer"] == summary["scorer"]]
    assert Counter(row["status"] for row in found) == summary["statuses"]
    assert {"ok", "bad_image", "caption_truncated"} <= summary["statuses"].keys()
    for row in rows:
        scored = row["status"] in ("ok", "caption_truncated")
        ours = row["scorer"] == summary["scorer"]
        assert (row["clip_score"] is not None) == (scored and ours)
        assert (row["itm"] is not None) == (row["su_entropy"] is not None) == (scored and not ours)
    assert run(pairs=pairs, scores=scores, model=clip)["rows"] == 0
    assert run(pairs=pairs, scores=scores, limit=20)["rows"] == 0  # what it knew is still known

    options: dict[str, Any] = {
        "scores": scores,
        "selection": str(tmp_path / "selection"),
        "rule": ["top 10 of clip_score"],
        "pairs": pairs,
        "output": str(tmp_path / "kept"),
    }
    with pytest.raises(UsageError, match="70 rows with clip_score"):
        filter_job.run(spark, FilterConfig(**options))
    kept = filter_job.run(spark, FilterConfig(**options, scorer=summary["scorer"]))
    assert kept["kept"] == 10
    best = sorted((r["clip_score"] for r in found if r["clip_score"] is not None), reverse=True)
    written = tables.read(spark, options["output"]).collect()
    assert sorted((row["clip_score"] for row in written), reverse=True) == best[:10]


def test_what_the_user_can_mend_is_said(spark: SparkSession, run: Score, tmp_path: Path) -> None:
    pairs = write(spark, tmp_path / "pairs", good_rows(2))
    with pytest.raises(UsageError, match="did you mean caption"):
        run(pairs=pairs, scores=str(tmp_path / "scores"), caption_column="captoin")
    with pytest.raises(UsageError, match="no model folder"):
        run(pairs=pairs, scores=str(tmp_path / "scores"), model=str(tmp_path / "absent"))
    with pytest.raises(UsageError, match="no Delta table"):
        run(pairs=str(tmp_path / "absent"), scores=str(tmp_path / "scores"))
    with pytest.raises(UsageError, match="is no scores table"):
        run(pairs=pairs, scores=pairs)
    assert not (tmp_path / "scores").exists()


def test_the_function_works_in_select_and_sql(
    spark: SparkSession, run: Score, model: str, tmp_path: Path
) -> None:
    rows = [*good_rows(5), ("bad", b"<html>", "x"), ("odd", GOOD[0], b"caf\xe9")]
    pairs = write(spark, tmp_path / "pairs", rows)
    run(pairs=pairs, scores=str(tmp_path / "scores"))
    wanted = {row["uid"]: row["itm"] for row in answers(spark, str(tmp_path / "scores"))}
    frame = tables.read(spark, pairs)
    column = shells.mlm_scores("image", "caption", ModelConfig(model)).alias("s")
    selected = frame.select("uid", column).select("uid", "s.*").collect()
    assert {row["uid"]: row["itm"] for row in selected} == pytest.approx(wanted, abs=1e-4)
    shells.register(spark, ModelConfig(model))
    frame.where("uid <> 'odd'").createOrReplaceTempView("some_pairs")
    told = spark.sql(
        "SELECT uid, s.itm, s.status"
        " FROM (SELECT uid, mlm_scores(image, caption) AS s FROM some_pairs)"
    ).collect()
    del wanted["odd"]
    assert {row["uid"]: row["itm"] for row in told} == pytest.approx(wanted, abs=1e-4)
    assert {row["status"] for row in told} == {"ok", "bad_image"}


def test_a_table_whose_files_are_not_its_rows_is_read_through_delta(
    spark: SparkSession, run: Score, tmp_path: Path
) -> None:
    """With deletion vectors the files still hold rows that are deleted."""
    pairs = write(spark, tmp_path / "pairs", good_rows(40), files=2)
    spark.sql(
        f"ALTER TABLE delta.`{pairs}` SET TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')"
    )
    spark.sql(f"DELETE FROM delta.`{pairs}` WHERE uid < 'uid-0010'")
    assert not score_plan.is_plain(spark, pairs, ["uid"])
    assert run(pairs=pairs, scores=str(tmp_path / "scores"))["rows"] == 30


def test_keys_take_the_tables_own_image_hash(spark: SparkSession) -> None:
    frame = spark.createDataFrame(
        [("a", b"1", "x", "known")], "uid string, image binary, caption string, image_sha string"
    )
    row = pairs_module.with_keys(frame).first()
    assert row is not None
    assert row["image_sha"] == "known"
    assert len(row["caption_sha"]) == 64


def test_slices_cover_every_bucket_of_every_file_once() -> None:
    from collections import deque

    files = deque([File("a", 10), File("b", 5000), File("c", 3), File("d", 4)])
    seen: Counter[tuple[str, int]] = Counter()
    sizes = iter([7, 900, 50, 2000, 1, 10_000])
    while files:
        part = score_plan.next_slice(files, next(sizes, 10_000))
        seen.update((path, b) for path in part.paths for b in range(part.start, part.stop))
    assert len(seen) == 4 * score_plan.BUCKETS
    assert set(seen.values()) == {1}
