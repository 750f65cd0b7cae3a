"""The finetune job on real Spark and a real (tiny) model: from tables to a model that scores."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_examples
import tiny_models
from pyspark.sql import SparkSession

from jobs.core.errors import UsageError
from jobs.finetune import job
from jobs.finetune.instruction_tables import read_tables
from jobs.finetune.settings import FinetuneConfig
from udfs.core.file_locks import lock_or_refuse
from udfs.core.metrics import METRICS
from udfs.models import mlm
from udfs.models.model_config import ModelConfig
from udfs.training import examples

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.spark
TINY = {
    "trainer": {"max_steps": 2, "gradient_accumulation_steps": 1, "disable_tqdm": True},
    "prompt": tiny_examples.PROMPT,
}


def table(path: Path, rows: list[dict[str, Any]]) -> str:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


def rows(numbers: range = range(8)) -> list[dict[str, Any]]:
    """Instructions with images and books."""
    return [
        row
        | {"image": tiny_examples.image(int(row["uid"][1:])), "book": f"b{int(row['uid'][1:]) % 4}"}
        for row in tiny_examples.instructions(numbers)
    ]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_models.qwen2_5_vl(tmp_path_factory.mktemp("qwen2_5_vl")))


def test_from_tables_to_a_model_with_its_card(
    spark: SparkSession, base: str, tmp_path: Path
) -> None:
    """Long instructions, a book held out, rows without a score and in another style."""
    extra = [row | {"score": None, "caption": "unrated"} for row in rows(range(1))]
    extra += [row | {"style": "chain_of_thought", "caption": "x"} for row in rows(range(1))]
    given = [{"style": None} | row for row in [*rows(), *extra]]
    broken = given[-1] | {"style": None, "uid": "broken", "image": b"no image", "caption": "y"}
    config = FinetuneConfig(
        instructions=table(tmp_path / "instructions.parquet", [*given, broken]),
        output=str(tmp_path / "model"),
        model=base,
        group_column="book",
        hold_out=["b3"],
        **TINY,
    )
    summary = job.run(spark, config)
    assert summary["instructions"] == dict.fromkeys(METRICS, 12)
    assert summary["held_out"] == dict.fromkeys(METRICS, 4)
    assert summary["left_out"] == {
        "another style": 8,
        "no score": 8,
        "image that cannot be decoded or is held out": 1,
    }
    assert summary["packed"]
    assert {(row["metric"], row["reading"], row["n"]) for row in summary["evaluation"]} == {
        (metric, reading, 4) for metric in METRICS for reading in ("expectation", "mode")
    }
    card = (tmp_path / "model" / "README.md").read_text()
    assert "On b3, which were never trained on" in card
    assert "another style 8" in card
    held_out = examples.read(tmp_path / "model.work" / "examples" / examples.HELD_OUT)
    assert set(held_out.images.uids) == {"u003", "u007"}
    scorer = mlm.load(ModelConfig(str(tmp_path / "model")))
    answer = scorer.score([tiny_examples.image(0)], ["red it is"])[0]
    assert answer.expectation is not None
    with pytest.raises(UsageError, match="exists already"):
        job.run(spark, config)


def test_the_wide_form_and_images_in_another_table(
    spark: SparkSession, base: str, tmp_path: Path
) -> None:
    """As teacher_scores.jsonl has it: a column a metric, reasons in `why`; a dry run."""
    wide = [
        {
            "uid": f"u{i:03}",
            "caption": f"caption {i}",
            **{metric: 10 * i + m for m, metric in enumerate(METRICS[:3])},
            "why": {metric: f"because {metric}" for metric in METRICS},
        }
        for i in range(6)
    ]
    path = tmp_path / "scores.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in wide))
    images = [{"uid": f"u{i:03}", "image": tiny_examples.image(i)} for i in range(6)]
    pairs = table(tmp_path / "images.parquet", images)
    summary = job.run(
        spark,
        FinetuneConfig(
            instructions=str(path),
            pairs=pairs,
            output=str(tmp_path / "model"),
            model=base,
            dry_run=True,
            **TINY,
        ),
    )
    assert summary["instructions"] == {metric: 6 for metric in METRICS[:3]}
    assert summary["trained_weights"] > 0
    assert summary["memory_bytes"] > 1e8
    assert summary["seconds_a_step"] > 0
    assert summary["steps"] == 2
    assert not (tmp_path / "model").exists()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["images.parquet", "scores.jsonl"]
    tables = read_tables(spark, str(path), pairs, "rationalization", None, [], None)
    found = tables.instructions.where("caption = 'caption 2'").collect()
    assert {(row["score"], row["reason"]) for row in found} == {
        (20.0 + m, f"because {metric}") for m, metric in enumerate(METRICS[:3])
    }


def test_two_processes_by_torch_distributor(spark: SparkSession, base: str, tmp_path: Path) -> None:
    path = table(tmp_path / "instructions.parquet", rows(range(4)))
    output = tmp_path / "model"
    config = FinetuneConfig(
        instructions=path, output=str(output), model=base, processes=2, device="cpu", **TINY
    )
    assert job.run(spark, config)["steps"] == 2
    assert (output / "adapter_model.safetensors").is_file()


def test_conversations_as_llava_has_them(spark: SparkSession, base: str, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(tiny_examples.image(2))
    turns = [{"from": "human", "value": "<image>\nColour?"}, {"from": "gpt", "value": "blue"}]
    talks = [
        {"id": "1", "image": "a.png", "conversations": turns},
        {"id": "2", "conversations": [turns[0] | {"value": "hello"}, turns[1] | {"value": "hi"}]},
    ]
    (tmp_path / "llava.json").write_text(json.dumps(talks))
    options: dict[str, Any] = {
        "instructions": table(tmp_path / "instructions.parquet", rows(range(4))),
        "conversations": str(tmp_path / "llava.json"),
        "output": str(tmp_path / "model"),
        "model": base,
    }
    with pytest.raises(UsageError, match="--conversation-images names their folder"):
        job.run(spark, FinetuneConfig(**options, **TINY))
    (tmp_path / "outside.png").write_bytes(b"secret")
    talks[0]["image"] = "../outside.png"
    (tmp_path / "hostile.json").write_text(json.dumps(talks))
    options |= {"conversation_images": str(tmp_path / "images"), "mix": 0.4}
    for number, wrong in enumerate((["hi", "ho"], [turns[1], turns[0]], [])):
        path = tmp_path / f"odd{number}.json"
        path.write_text(json.dumps([{"conversations": wrong}]))
        with pytest.raises(UsageError, match="not turns|no conversation of a user"):
            job.run(spark, FinetuneConfig(**options | {"conversations": str(path)}, **TINY))
    with pytest.raises(UsageError, match="leads out of"):
        job.run(
            spark,
            FinetuneConfig(**options | {"conversations": str(tmp_path / "hostile.json")}, **TINY),
        )
    summary = job.run(spark, FinetuneConfig(**options, **TINY))
    assert summary["conversations"] == 2
    found = examples.read(tmp_path / "model.work" / "examples").conversations
    assert [talk.turns for talk in found] == [
        (("user", "Colour?"), ("assistant", "blue")),
        (("user", "hello"), ("assistant", "hi")),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": "style"}, "1 rows have an unknown metric .*such as u000 style"),
        ({"score": 101.0}, r"1 rows have a score outside 0..100, such as u000 itm 101"),
        ({"uid": None}, "1 rows have no uid"),
        ({"caption": " "}, "1 rows have no caption"),
        ({"uid": "u999", "image": None}, "1 uids have no image, such as u999 .*--pairs"),
        ({"spread": 70.0}, "1 rows have a spread outside"),
    ],
)
def test_wrong_rows_stop_the_job_before_anything_is_trained(
    spark: SparkSession, base: str, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    given = rows(range(2))
    given[0] |= change
    path = table(tmp_path / "instructions.parquet", given)
    config = FinetuneConfig(instructions=path, output=str(tmp_path / "model"), model=base)
    with pytest.raises(UsageError, match=message):
        job.run(spark, config)
    assert not (tmp_path / "model.work" / "checkpoints").exists()


def test_what_cannot_be_asked_for(spark: SparkSession, base: str, tmp_path: Path) -> None:
    path = table(tmp_path / "instructions.parquet", rows(range(4)))
    options: dict[str, Any] = {
        "instructions": path,
        "output": str(tmp_path / "m"),
        "model": base,
        "group_column": "book",
    }
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "x"}')
    clash = [rows(range(1))[0], rows(range(1))[0] | {"image": tiny_examples.image(5)}]
    mine = tmp_path / "mine"
    (mine / "examples").mkdir(parents=True)
    (mine / "examples" / "diary.txt").write_text("mine")
    for change, message in (
        ({"hold_out": ["b9"]}, "no group b9 in book; did you mean b"),
        ({"hold_out": ["b0", "b1", "b2", "b3"]}, "names all groups"),
        ({"group_column": "bok", "hold_out": ["b1"]}, "no table has a column bok; did you mean"),
        ({"model": str(adapter)}, "is an adapter"),
        ({"model": "/no/such/model"}, "there is no model folder"),
        (
            {"trainer": {"lerning_rate": 1}},
            "lerning_rate cannot be set; did you mean learning_rate",
        ),
        ({"trainer": {"output_dir": "x"}}, "output_dir cannot be set"),
        ({"trainer": {"learning_rate": "abc"}}, "learning_rate=abc: a number needed"),
        ({"trainer": {"gradient_accumulation_steps": 0}}, "=0: a whole number needed"),
        ({"trainer": {"max_steps": 1.5}}, "max_steps=1.5: a whole number needed"),
        ({"trainer": {"eval_strategy": "epoch"}}, "nothing to evaluate on; see --hold-out"),
        ({"work": base}, "is the folder of the base model"),
        ({"work": str(mine)}, "holds files that are no examples of this job"),
        ({"output": f"{path}/x"}, "cannot write to"),
        ({"trainer": {"report_to": "no_such_logger"}}, "trainer: no_such_logger is not supported"),
        ({"instructions": table(tmp_path / "clash.parquet", clash)}, "u000 has several images"),
        ({"instructions": table(tmp_path / "e.parquet", [{"uid": "a", "caption": "b"}])}, "metric"),
    ):
        with pytest.raises(UsageError, match=message):
            job.run(spark, FinetuneConfig(**options | change))
    assert (mine / "examples" / "diary.txt").read_text() == "mine"
    with (
        lock_or_refuse(tmp_path / "m.work" / "lock"),
        pytest.raises(UsageError, match="another run of finetune is at work in"),
    ):
        job.run(spark, FinetuneConfig(**options))


@pytest.mark.long
def test_killed_and_started_again_by_the_command_line(base: str, tmp_path: Path) -> None:
    """No option but the three that a user gives; SIGKILL after the first checkpoint."""
    path = table(tmp_path / "instructions.parquet", rows(range(4)))
    model = tmp_path / "model"
    command = [sys.executable, "-m", "jobs", "finetune", "--model", base, "--instructions", path]
    command += ["--output", str(model)]
    environment = os.environ | {"MLM_FILTER_MASTER": "local[1]"}
    first = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    checkpoints = tmp_path / "model.work" / "checkpoints"
    deadline = time.monotonic() + 120
    while not list(checkpoints.glob("checkpoint-*/complete")) and first.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert not model.exists()
    again = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr[-2000:]
    line = json.loads(again.stdout.splitlines()[-1])
    assert (line["status"], line["output"]) == ("ok", str(model))
    answers = mlm.load(ModelConfig(str(model))).score([tiny_examples.image(1)], ["green it is"])
    assert answers[0].status == "ok"
