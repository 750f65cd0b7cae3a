"""Other ways to score: a dual encoder in the same table, and a function in queries. Models that
cannot score."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tiny_dual_encoders
from pyspark.sql import SparkSession
from tiny_pairs import GOOD, Score, damaged_rows, good_rows, score_rows, write

from jobs.core.errors import UsageError
from jobs.filter import job as filter_job
from jobs.filter.settings import FilterConfig
from jobs.score import job as score
from jobs.tables import delta
from udfs import spark as udfs_spark
from udfs.models.model_config import ModelConfig

pytestmark = pytest.mark.spark


def test_a_dual_encoder_scores_in_the_same_table_and_its_signal_filters(
    spark: SparkSession, run_score: Score, tmp_path: Path
) -> None:
    pairs = write(spark, tmp_path / "pairs", [*good_rows(30), *damaged_rows()[0][:40]])
    scores = str(tmp_path / "scores")
    run_score(pairs=pairs, scores=str(tmp_path / "new"), limit=20)
    # a table of an earlier version lacks the column that the dual encoder needs
    delta.overwrite(delta.read(spark, str(tmp_path / "new")).drop("clip_score"), scores)
    clip = str(tiny_dual_encoders.clip(tmp_path / "clip"))
    summary = run_score(pairs=pairs, scores=scores, model=clip)
    assert summary["rows"] == 70
    rows = score_rows(spark, scores)
    assert len(rows) == 90
    found = [row for row in rows if row["scorer"] == summary["scorer"]]
    assert Counter(row["status"] for row in found) == summary["statuses"]
    assert {"ok", "bad_image", "caption_truncated"} <= summary["statuses"].keys()
    for row in rows:
        scored = row["status"] in ("ok", "caption_truncated")
        from_clip = row["scorer"] == summary["scorer"]
        assert (row["clip_score"] is not None) == (scored and from_clip)
        assert (
            (row["itm"] is not None)
            == (row["su_entropy"] is not None)
            == (scored and not from_clip)
        )
    assert run_score(pairs=pairs, scores=scores, model=clip)["rows"] == 0
    # the first scorer's rows count as scored, too
    assert run_score(pairs=pairs, scores=scores, limit=20)["rows"] == 0

    options: dict[str, Any] = {
        "scores": scores,
        "selection": str(tmp_path / "selection"),
        "rule": ["top 10 of clip_score"],
        "pairs": pairs,
        "output": str(tmp_path / "kept"),
    }
    with pytest.raises(UsageError, match="70 rows with clip_score"):
        filter_job.run(spark, FilterConfig(**options))
    summary = filter_job.run(spark, FilterConfig(**options, scorer=summary["scorer"]))
    assert summary["kept"] == 10
    best = sorted((r["clip_score"] for r in found if r["clip_score"] is not None), reverse=True)
    written = delta.read(spark, options["output"]).collect()
    assert sorted((row["clip_score"] for row in written), reverse=True) == best[:10]


def test_the_function_works_in_select_and_sql(
    spark: SparkSession, run_score: Score, scoring_model: str, tmp_path: Path
) -> None:
    rows = [*good_rows(5), ("bad", b"<html>", "x"), ("latin", GOOD[0], b"caf\xe9")]
    pairs = write(spark, tmp_path / "pairs", rows)
    run_score(pairs=pairs, scores=str(tmp_path / "scores"))
    expected = {row["uid"]: row["itm"] for row in score_rows(spark, str(tmp_path / "scores"))}
    frame = delta.read(spark, pairs)
    column = udfs_spark.mlm_scores("image", "caption", ModelConfig(scoring_model)).alias("s")
    selected = frame.select("uid", column).select("uid", "s.*").collect()
    assert {row["uid"]: row["itm"] for row in selected} == pytest.approx(expected, abs=1e-4)
    udfs_spark.register(spark, ModelConfig(scoring_model))
    frame.where("uid <> 'latin'").createOrReplaceTempView("some_pairs")
    queried = spark.sql(
        "SELECT uid, s.itm, s.status"
        " FROM (SELECT uid, mlm_scores(image, caption) AS s FROM some_pairs)"
    ).collect()
    del expected["latin"]
    assert {row["uid"]: row["itm"] for row in queried} == pytest.approx(expected, abs=1e-4)
    assert {row["status"] for row in queried} == {"ok", "bad_image"}


def test_weights_that_are_not_the_models_own_are_one_line_and_exit_code_2(
    spark: SparkSession, scoring_model: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file, save_file

    pairs = write(spark, tmp_path / "pairs", good_rows(2), files=1)
    broken = Path(shutil.copytree(scoring_model, tmp_path / "broken"))
    tensors = load_file(broken / "model.safetensors")
    save_file({name: tensors[name] for name in sorted(tensors)[10:]}, broken / "model.safetensors")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    base = {"base_model_name_or_path": scoring_model, "peft_type": "LORA"}
    (adapter / "adapter_config.json").write_text(json.dumps(base))
    (adapter / "adapter_model.bin").write_bytes(b"a pickle")

    def refused(model: Path) -> str:
        """What is printed for people, without the lines that every run prints."""
        scores = str(tmp_path / f"scores-{model.name}")
        capfd.readouterr()
        assert score.main(["--pairs", pairs, "--scores", scores, "--model", str(model)]) == 2
        out, err = capfd.readouterr()
        assert json.loads(out.splitlines()[-1])["status"] == "usage_error"
        assert "Traceback" not in err
        (line,) = [line for line in err.splitlines() if line.startswith("mlm-filter score: ")]
        return line

    assert f"the model {broken} lacks 10 of its 64 tensors (lm_head.weight, " in refused(broken)
    assert f"{adapter} has pickled weights only (adapter_model.bin)" in refused(adapter)
