"""What the tests of faults share: tables, an unbroken run to compare with, and the page's table."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_models
from fault_injection.fault_runs import ROWS, Answers, Case, rows_of, write_pairs
from fault_injection.recovery_check import Recovery
from fault_injection.recovery_table import Results


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny model that scores."""
    return str(tiny_models.llava(tmp_path_factory.mktemp("llava")))


@pytest.fixture(scope="session")
def unbroken(model: str, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """The answers of a run that nothing disturbs."""
    case = Case(tmp_path_factory.mktemp("unbroken"), model)
    write_pairs(case.pairs, rows_of(ROWS))
    assert case.start().wait() == 0
    return case.answers()


@pytest.fixture
def case(tmp_path: Path, model: str) -> Case:
    """A pairs table of ROWS rows in three files."""
    case = Case(tmp_path, model)
    write_pairs(case.pairs, rows_of(ROWS))
    return case


@pytest.fixture
def recovery(case: Case, unbroken: Answers, request: pytest.FixtureRequest) -> Iterator[Recovery]:
    """Checks a fault in `case`; what it finds goes into the page, if asked
    (`./build.sh test --faults`)."""
    name = f"{request.path.name}::{request.node.name}"
    results = Results()
    yield Recovery(case, unbroken, results, name, time.monotonic())
    if path := os.environ.get("MLM_FILTER_FAULTS_PAGE"):
        results.write(Path(path))
