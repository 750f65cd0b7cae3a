"""The rules of setup.cfg and pyproject.toml hold, and so do those of size and naming: each of them
fires where it is broken."""

import ast
import configparser
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from jobs import JOBS, OLD_NAMES, __version__
from jobs.core.settings import parse

CHECKOUT = Path(__file__).parent.parent
COMMANDS = Path(sys.executable).parent
ROOMS = ("jobs", "udfs", "tests")

MOST_MODULES = 14
MOST_LINES = 300
DEEPEST = 2  # folders below a room
SUBCLASSES = {"udfs.training.trainer"}
"""Modules that import a model library: a subclass needs its base. `udfs.training.run` imports them,
in its functions."""
MUTE_NAMES = re.compile(
    r"(^|_)(told|kept|places?|knowing|shown|still|held|looks|asking|misc|utils?|helpers?|\d+)$"
)
"""What says nothing of a file's content: words for a state, and names that hold anything."""


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
    """What import-linter says of the contracts that are broken; empty where all are met."""
    command: list[str | Path] = [COMMANDS / "lint-imports", "--config", "setup.cfg", "--no-cache"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def ruff(folder: Path) -> str:
    command: list[str | Path] = [COMMANDS / "ruff", "check", "--no-cache", "--select", "TID253"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def modules_of(folder: Path) -> list[Path]:
    """The modules of one folder; `__init__.py` and `__main__.py` hold nothing of their own."""
    return [path for path in sorted(folder.glob("*.py")) if not path.stem.startswith("__")]


def layout_faults(root: Path) -> Iterator[str]:
    """What breaks the rules of layout: crowded or deep folders, long files, mute names, folders
    whose `__init__.py` does not say what its files hold."""
    for room in ROOMS:
        for folder in [root / room, *(p for p in (root / room).rglob("*") if p.is_dir())]:
            name = folder.relative_to(root).as_posix()
            modules = modules_of(folder)
            if len(modules) > MOST_MODULES:
                yield f"{name}: {len(modules)} modules, at most {MOST_MODULES}"
            depth = len(folder.relative_to(root / room).parts)
            if depth > DEEPEST and modules:
                yield f"{name}: {depth} folders deep, at most {DEEPEST}"
            for path in modules:
                lines = len(path.read_text("utf-8").splitlines())
                if lines > MOST_LINES:
                    yield f"{name}/{path.name}: {lines} lines, at most {MOST_LINES}"
                if MUTE_NAMES.search(path.stem):
                    yield f"{name}/{path.name}: a name that says nothing of the content"
            if room == "tests" or not modules:
                continue
            about = folder / "__init__.py"
            tree = ast.parse(about.read_text("utf-8")) if about.is_file() else ast.Module([], [])
            listed = ast.get_docstring(tree) or ""
            for path in modules:
                if not re.search(rf"^\s*{path.name}\s+\S", listed, re.MULTILINE):
                    yield f"{name}/__init__.py: does not say what {path.name} holds"
            if any(isinstance(node, ast.Import | ast.ImportFrom) for node in tree.body):
                yield f"{name}/__init__.py: re-exports"


def test_the_rules_hold(copy: Path) -> None:
    assert lint_imports(copy) == ""
    assert ruff(copy) == ""
    assert list(layout_faults(CHECKOUT)) == []


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("udfs/core/metrics.py", "from jobs.rules import rule", "Imports go one way"),
        ("udfs/core/metrics.py", "def f(): import pyspark.sql", "udfs/ is plain Python"),
        ("udfs/core/metrics.py", "from udfs.scoring import prompts", "In udfs/ imports go down"),
        ("jobs/rules/rule.py", "def f(): import torch", "The driver knows no model library"),
        ("jobs/rules/rule.py", "def f(): from ..score import job", "In jobs/ imports go down"),
        ("jobs/filter/job.py", "from ..score import settings", "no job imports another"),
        ("jobs/rules/syntax_tree.py", "def f(): from . import rule", "No circle between the files"),
        ("udfs/scoring/readout.py", "from . import packing, results", "No circle between"),
    ],
)
def test_each_contract_fires(copy: Path, module: str, line: str, contract: str) -> None:
    with (copy / module).open("a") as source:
        source.write(f"\n\n{line}\n")
    said = lint_imports(copy)
    assert contract in said.partition("Broken contracts")[2], said


def test_each_rule_of_layout_fires(tmp_path: Path) -> None:
    def write(path: str, text: str = '"""Some."""\n') -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    for number in range(MOST_MODULES + 1):
        write(f"jobs/full/word_{chr(97 + number)}.py")
    listed = "\n".join(f"word_{chr(97 + n)}.py  a word" for n in range(MOST_MODULES + 1))
    write("jobs/full/__init__.py", f'"""Words.\n\n{listed}\n"""\n')
    write("udfs/a/b/c/deep.py")
    write("udfs/a/b/c/__init__.py", '"""Deep.\n\ndeep.py  deep\n"""\n')
    write(
        "udfs/a/__init__.py", '"""Files.\n\nlong.py  long\nkept.py  mute\n"""\nfrom . import long\n'
    )
    write("udfs/a/long.py", "\n" * (MOST_LINES + 1))
    write("udfs/a/kept.py")
    write("tests/rows_2.py")
    write("udfs/unlisted/odd.py")
    assert sorted(layout_faults(tmp_path)) == [
        "jobs/full: 15 modules, at most 14",
        "tests/rows_2.py: a name that says nothing of the content",
        "udfs/a/__init__.py: re-exports",
        "udfs/a/b/c: 3 folders deep, at most 2",
        "udfs/a/kept.py: a name that says nothing of the content",
        "udfs/a/long.py: 301 lines, at most 300",
        "udfs/unlisted/__init__.py: does not say what odd.py holds",
    ]


def test_the_readme_is_short() -> None:
    assert len((CHECKOUT / "README.md").read_text("utf-8").splitlines()) <= 150


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
        ".".join(path.relative_to(CHECKOUT).with_suffix("").parts)
        for room in ("jobs", "udfs")
        for path in sorted((CHECKOUT / room).rglob("*.py"))
        if not path.stem.startswith("__")
    ]
    assert {"jobs.score.job", "udfs.spark"} <= set(modules)
    modules = [name for name in modules if name not in SUBCLASSES]
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
    jobs = {path.parent.name for path in (CHECKOUT / "jobs").glob("*/job.py")}
    assert jobs == set(JOBS) == {path.parent.name for path in CHECKOUT.glob("jobs/*/__main__.py")}
    assert set(OLD_NAMES.values()) <= jobs
    packages = {
        ".".join(path.parent.relative_to(CHECKOUT).parts)
        for room in ("jobs", "udfs")
        for path in (CHECKOUT / room).rglob("__init__.py")
    }
    listed = settings["options"]["packages"].split()
    assert {name.removeprefix("mlm_filter.") for name in listed} == {*packages, "conf"}
    assert settings["metadata"]["version"] == __version__


def test_the_bundle_calls_the_jobs_with_options_that_they_have() -> None:
    bundle = yaml.safe_load((CHECKOUT / "conf" / "databricks_job.yml").read_text())
    settings = configparser.ConfigParser()
    settings.read(CHECKOUT / "setup.cfg")
    scripts = settings["options.entry_points"]["console_scripts"]
    for task in bundle["resources"]["jobs"]["pairs"]["tasks"]:
        job, call = task["task_key"], task["python_wheel_task"]
        entry = f"{call['entry_point']} = mlm_filter.jobs.wheel_entry_points:{job}\n"
        assert entry in f"{scripts}\n"
        given = {"${var.source}": "parquet", "{{job.parameters.rule}}": "itm >= 66"}
        words = [given.get(word, word) for word in call["parameters"]]
        module = import_module(f"jobs.{job}.job")
        config_type = getattr(module, f"{job.capitalize()}Config")
        parse(config_type, words, job)  # raises for an option that the job does not have
