"""The rules of setup.cfg and pyproject.toml hold, and each of them fires where it is broken."""

import configparser
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from jobs import JOBS, __version__
from jobs.core.settings import parse

CHECKOUT = Path(__file__).parent.parent
COMMANDS = Path(sys.executable).parent


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for room in ("jobs", "udfs"):
        shutil.copytree(
            CHECKOUT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__")
        )
    for settings in ("setup.cfg", "pyproject.toml"):
        shutil.copy(CHECKOUT / settings, tmp_path)
    return tmp_path


def lint_imports(folder: Path) -> str:
    """What import-linter says of the contracts that are broken; empty where all are kept."""
    command: list[str | Path] = [COMMANDS / "lint-imports", "--config", "setup.cfg", "--no-cache"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def ruff(folder: Path) -> str:
    command: list[str | Path] = [COMMANDS / "ruff", "check", "--no-cache", "--select", "TID253"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_the_rules_hold(copy: Path) -> None:
    assert lint_imports(copy) == ""
    assert ruff(copy) == ""


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("udfs/core/metrics.py", "from jobs import rules", "Imports go one way"),
        ("udfs/core/metrics.py", "def f(): import pyspark.sql", "udfs/ is plain Python"),
        ("jobs/rules/rule.py", "def f(): import torch", "The driver knows no model library"),
        ("jobs/rules/rule.py", "def f(): from . import score", "Nothing imports a job"),
    ],
)
def test_each_contract_fires(copy: Path, module: str, line: str, contract: str) -> None:
    with (copy / module).open("a") as source:
        source.write(f"\n\n{line}\n")
    said = lint_imports(copy)
    assert contract in said.partition("Broken contracts")[2], said


@pytest.mark.parametrize("line", ["import torch", "from transformers import AutoProcessor"])
@pytest.mark.parametrize("module", ["udfs/core/metrics.py", "jobs/rules/rule.py"])
def test_no_model_library_is_imported_by_a_module(copy: Path, module: str, line: str) -> None:
    with (copy / module).open("a") as source:
        source.write(f"\n\ndef allowed():\n    {line}\n\n")
    assert ruff(copy) == ""
    with (copy / module).open("a") as source:
        source.write(f"\n{line}\n")
    assert "TID253" in ruff(copy)


def test_importing_the_rooms_loads_no_model_library() -> None:
    """Also where ruff does not look: behind `try`, or in a library that brings torch along."""
    modules = [
        f"{room}.{path.stem}"
        for room in ("jobs", "udfs")
        for path in sorted((CHECKOUT / room).glob("*.py"))
        if not path.stem.startswith("__")
    ]
    assert {"jobs.score.job", "udfs.spark"} <= set(modules)
    script = f"""
import sys
from importlib import import_module
for name in {modules}:
    import_module(name)
    heavy = {{"torch", "transformers"}} & set(sys.modules)
    assert not heavy, f"{{name}} loads {{heavy}}"
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_settings_agree_with_the_code() -> None:
    settings = configparser.ConfigParser()
    settings.read(CHECKOUT / "setup.cfg")
    protected = settings["importlinter:contract:jobs-stand-alone"]["protected_modules"].split()
    assert sorted(protected) == sorted(f"jobs.{job}" for job in JOBS)
    assert settings["metadata"]["version"] == __version__


def test_the_bundle_calls_the_jobs_with_options_that_they_have() -> None:
    bundle = yaml.safe_load((CHECKOUT / "conf" / "databricks_job.yml").read_text())
    settings = configparser.ConfigParser()
    settings.read(CHECKOUT / "setup.cfg")
    scripts = settings["options.entry_points"]["console_scripts"]
    for task in bundle["resources"]["jobs"]["pairs"]["tasks"]:
        job, call = task["task_key"], task["python_wheel_task"]
        assert f"{call['entry_point']} = mlm_filter.jobs.task:{job}\n" in f"{scripts}\n"
        given = {"${var.source}": "parquet", "{{job.parameters.rule}}": "itm >= 66"}
        words = [given.get(word, word) for word in call["parameters"]]
        config_type = getattr(import_module(f"jobs.{job}"), f"{job.capitalize()}Config")
        parse(config_type, words, job)  # raises for an option that the job does not have
