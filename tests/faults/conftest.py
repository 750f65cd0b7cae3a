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

RESULTS = pytest.StashKey[Results]()


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
def recovery(case: Case, unbroken: Answers, request: pytest.FixtureRequest) -> Recovery:
    """Checks a fault in `case`."""
    name = f"{request.path.name}::{request.node.name}"
    results = request.config.stash[RESULTS]
    return Recovery(case, unbroken, results, name, time.monotonic())


def pytest_configure(config: pytest.Config) -> None:
    """Collect lines for the page."""
    config.stash[RESULTS] = Results()


@pytest.fixture(scope="session", autouse=True)
def page(request: pytest.FixtureRequest) -> Iterator[None]:
    """Write what the tests found into the page, if asked (`./build.sh test --faults`)."""
    yield
    if path := os.environ.get("MLM_FILTER_FAULTS_PAGE"):
        request.config.stash[RESULTS].write(Path(path))
