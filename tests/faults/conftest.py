"""What the tests of faults share: tables, an unbroken run to compare with, and the page's table."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from fault_runs import ROWS, Case, Run, same, traces, write_pairs
from recovery_table import Line, Results
from tiny_pairs import GOOD

Answers = dict[str, tuple[Any, ...]]
RESULTS = pytest.StashKey[Results]()


def rows_of(count: int) -> list[tuple[str, bytes, str]]:
    """Good rows with captions of unlike length."""
    return [(f"uid-{i:05}", GOOD[i % 20], f"caption {i} " * (1 + i % 5)) for i in range(count)]


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


@dataclass
class Recovery:
    """Checks what a fault has left, runs the job again, and notes both for the page."""

    case: Case
    unbroken: Answers
    results: Results
    test: str
    started: float

    def check(
        self,
        event: str,
        run: Run,
        code: int,
        *,
        says: str | None = "",
        remedy: str = "the same command",
        again: Callable[[], Run] | None = None,
        expected: Answers | None = None,
        least: int = 0,
        most: int = ROWS,
    ) -> None:
        """The run ends with this exit code and a sentence that has `says` (None: without one), and
        no trace; between `least` and `most` rows are in the table, none twice, all right. After
        `remedy` the table is as after an unbroken run, and nothing is left in the temp folder."""
        assert run.wait() == code, run.text()
        assert not traces(run.text()), run.text()
        sentence = run.last_line()
        assert bool(sentence) is (says is not None), run.text()
        assert (says or "") in sentence
        expected = expected or self.unbroken
        there = self.case.answers()
        assert least <= len(there) <= most, f"{len(there)} rows"
        assert same(there, {uid: expected[uid] for uid in there})
        if code or len(there) < len(expected) or again:
            second = again() if again else self.case.start()
            assert second.wait() == 0, second.text()
        assert same(self.case.answers(), expected)
        left = [path.name for path in self.case.temp.iterdir() if "lock" not in path.name]
        assert not [name for name in left if not name.startswith(f"mlm-filter-{os.getuid()}")], left
        self.results.add(
            Line(
                event,
                f"{len(there)} of {len(expected)} rows" if len(there) < len(expected) else "all",
                self._anonymous(sentence.partition(": ")[2]) or "nothing",
                code,
                remedy if code or len(there) < len(expected) or again else "nothing",
                self.test,
                time.monotonic() - self.started,
            )
        )

    def _anonymous(self, text: str) -> str:
        """Without the folders of this test."""
        return text.replace(str(self.case.model), "MODEL").replace(f"{self.case.folder}/", "")


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
    """Write the page's table from what the tests found, if asked (`./build.sh test --faults`)."""
    yield
    if os.environ.get("MLM_FILTER_FAULTS_PAGE"):
        request.config.stash[RESULTS].write(Path(os.environ["MLM_FILTER_FAULTS_PAGE"]))
