"""The command line, as a person or a scheduler uses it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field
from pyspark.sql import SparkSession

from jobs import JOBS, cli
from jobs.core.errors import UsageError
from jobs.core.job_runner import main
from jobs.core.settings import JobConfig
from udfs.models.model_config import ModelError

CHECKOUT = Path(__file__).parents[3]


class EchoConfig(JobConfig):
    """Say something."""

    text: str = Field(default="hello", description="what to say")


def last_line(text: str) -> dict[str, Any]:
    line: dict[str, Any] = json.loads(text.splitlines()[-1])
    return line


def test_help_lists_the_jobs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {job}" in text for job in JOBS)


def test_no_job_is_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert capsys.readouterr().out == ""


def test_a_mistyped_job_suggests_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["scoer", "--pairs", "P"]) == 2
    assert capsys.readouterr().err == "mlm-filter: unknown job scoer; did you mean score?\n"


def test_the_old_name_of_a_job_works(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["standin", "--help"]) == 0
    assert "usage: mlm-filter baseline" in capsys.readouterr().out


def test_help_of_a_job_starts_neither_java_nor_torch() -> None:
    script = (
        "import sys; from jobs.cli import main; code = main(['ingest', '--help']);"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules; sys.exit(code)"
    )
    completed = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
        env={"JAVA_HOME": "/nowhere", "PATH": ""},
    )
    assert (completed.returncode, completed.stderr) == (0, "")
    assert "--caption-column" in completed.stdout


def test_without_java_one_line_says_how_to_get_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_session(app: str) -> tuple[SparkSession, bool]:
        return session._local_session(app), True

    from jobs.core import session

    monkeypatch.setattr(session, "get_spark", no_session)
    monkeypatch.setattr("jobs.core.java.home", lambda: None)
    assert main("echo", EchoConfig, lambda spark, config: {}, []) == 2
    captured = capsys.readouterr()
    assert "Spark needs Java 17 or 21" in captured.err
    assert captured.err.count("\n") == 1
    assert last_line(captured.out)["status"] == "usage_error"


@pytest.mark.spark
def test_a_job_ends_with_one_line_of_json(
    spark: SparkSession, capsys: pytest.CaptureFixture[str]
) -> None:
    def body(session: SparkSession, config: EchoConfig) -> dict[str, Any]:
        assert session is spark
        return {"text": config.text, "mean": float("nan"), "counts": {"ok": 1}}

    assert main("echo", EchoConfig, body, ["--text", "a\ud800"]) == 0
    line = last_line(capsys.readouterr().out)
    assert (line["job"], line["status"], line["mean"]) == ("echo", "ok", None)
    assert line["counts"] == {"ok": 1}
    assert {"run_id", "seconds"} <= line.keys()
    assert spark.range(1).count() == 1  # the session that was active is left running


@pytest.mark.spark
def test_errors_that_a_user_can_cause_have_no_traceback(
    spark: SparkSession, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(session: SparkSession, config: EchoConfig) -> dict[str, Any]:
        raise UsageError("no such table")

    def read(session: SparkSession, config: EchoConfig) -> dict[str, Any]:
        return {"n": session.read.parquet("/nowhere").count()}

    for body in (refuse, read):
        assert main("echo", EchoConfig, body, []) == 2
        captured = capsys.readouterr()
        assert captured.err.count("\n") == 1
        assert last_line(captured.out)["status"] == "usage_error"


@pytest.mark.spark
def test_an_error_in_a_python_worker_is_cut_down_to_its_last_line(
    spark: SparkSession, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(session: SparkSession, config: EchoConfig) -> dict[str, Any]:
        def broken(batches: Any) -> Any:
            raise ValueError("the model is not there")

        return {"n": session.range(1).mapInArrow(broken, "id long").count()}

    assert main("echo", EchoConfig, fail, []) == 1
    captured = capsys.readouterr()
    assert last_line(captured.out)["error"] == "ValueError: the model is not there"
    assert "Traceback" not in captured.err
    assert "--debug" in captured.err


@pytest.mark.spark
def test_a_model_that_workers_cannot_load_is_named(
    spark: SparkSession, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fail(session: SparkSession, config: EchoConfig) -> dict[str, Any]:
        def broken(batches: Any) -> Any:
            raise ModelError("cannot load model 'x': no weights")

        session.range(1).mapInArrow(broken, "id long").write.parquet(str(tmp_path / "t"))
        return {}

    assert main("echo", EchoConfig, fail, []) == 2
    assert last_line(capsys.readouterr().out)["error"] == "cannot load model 'x': no weights"
