"""Rows that end the process get a verdict, and all others their answers: with rows that do nothing
but that, so that many kinds and places of them can be tried."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from poison import act

from udfs.processes import watched_process
from udfs.processes.row_supervisor import (
    MOST_DEATHS,
    Channel,
    ProcessError,
    ProcessLostError,
    RowSupervisor,
)
from udfs.processes.watched_process import Limits

LIMITS = Limits(seconds=1.5, memory=64 << 20)
TOGETHER = 4  # rows that are worked on at once


def serve(request: str, channel: Channel) -> None:
    """Answers each row with itself and "!", TOGETHER at once; `request` is acted on before."""
    act(request)
    channel.ready("loaded")
    number = 0
    for piece in channel.pieces():
        for start in range(0, len(piece), TOGETHER):
            rows = [kind for (kind,) in piece[start : start + TOGETHER]]
            with channel.record(0, range(number, number + len(rows))):
                for kind in rows:
                    if kind == "lost":
                        raise ProcessLostError("the device is gone")
                    if kind == "raise":
                        raise ValueError("a row's error")
                    act(kind)
            number += len(rows)
        channel.answer([f"{kind}!" for (kind,) in piece], "answered")


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Iterator[RowSupervisor]:
    monkeypatch.setattr(watched_process, "POLL_SECONDS", 0.02)
    found = RowSupervisor(serve, ("the row",))
    yield found
    if found._process is not None:
        found._process.end()


def verdict(kind: str, reason: str) -> Any:
    return kind, reason


def answers(
    supervisor: RowSupervisor, *batches: list[str], request: str = "", **more: Any
) -> list[list[Any]]:
    rows = [[(kind,) for kind in batch] for batch in batches]
    return list(supervisor.stream(request, rows, LIMITS, verdict, **more))


def fine(count: int) -> list[str]:
    return [f"row {n}" for n in range(count)]


def said(rows: list[str]) -> list[str]:
    return [f"{kind}!" for kind in rows]


def gone(pid: int, or_zombie: bool = False) -> bool:
    """Whether a process ends within some seconds, and is waited for."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if or_zombie and state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_answers_come_by_batch_from_one_process(supervisor: RowSupervisor) -> None:
    batches: list[list[str]] = [[], fine(200), [], fine(1), fine(3), []]
    reports: list[str] = []
    assert answers(supervisor, *batches, on_report=reports.append) == [said(b) for b in batches]
    assert reports == ["loaded", *["answered"] * 6]  # 64 + 64 + 64 + 8, 1, 3
    assert answers(supervisor, fine(2)) == [said(fine(2))]
    assert supervisor.starts == 1


@pytest.mark.parametrize("batches", [(), ([],), ([], [])])
def test_without_rows_no_process_is_started(
    supervisor: RowSupervisor, batches: tuple[list[str], ...]
) -> None:
    assert answers(supervisor, *batches, request="exit") == list(batches)
    assert supervisor.starts == 0


CRASHES = {
    "exit": "the row ended the process: exit code 7, three times (twice alone)",
    "segfault": "the row ended the process: SIGSEGV, three times (twice alone)",
    "lost": "the row ended the process: the device is gone, three times (twice alone)",
    "allocate": "the row took more than 64 MiB of memory, three times (twice alone)",
}
HANGS = ("sleep", "spin")


@pytest.mark.parametrize("kind", [*CRASHES, *HANGS])
def test_one_bad_row_among_many(supervisor: RowSupervisor, kind: str) -> None:
    rows = fine(150)
    rows[70] = kind
    found = answers(supervisor, rows[:100], rows[100:])
    expected: list[Any] = said(rows)
    expected[70] = (
        ("timeout", "the row took more than 1.5 s") if kind in HANGS else ("crashed", CRASHES[kind])
    )
    assert found == [expected[:100], expected[100:]]
    assert supervisor.starts <= 4  # three deaths of a row at most


@pytest.mark.parametrize(
    "bad",
    [{0}, {1, 2}, {5, 6, 7, 8}, {0, 63}, {63, 64}, {19}, set(range(8, 16))],
    ids=lambda bad: str(sorted(bad)),
)
def test_bad_rows_anywhere(supervisor: RowSupervisor, bad: set[int]) -> None:
    rows = fine(80)
    for number in bad:
        rows[number] = "exit"
    (found,) = answers(supervisor, rows)
    assert {n for n, answer in enumerate(found) if answer[0] == "crashed"} == bad
    assert [a for n, a in enumerate(found) if n not in bad] == [
        f"{kind}!" for n, kind in enumerate(rows) if n not in bad
    ]
    assert supervisor.starts <= 1 + 3 * len(bad)


@pytest.mark.parametrize(("deaths", "scored"), [(1, True), (2, True), (3, False)])
def test_a_signal_from_outside_condemns_no_row(
    supervisor: RowSupervisor, tmp_path: Path, deaths: int, scored: bool
) -> None:
    kind = f"die:{deaths}:{tmp_path / 'deaths'}"
    rows = ["a", kind, "b"]
    (found,) = answers(supervisor, rows)
    expected: Any = f"{kind}!"
    if not scored:
        expected = "crashed", "the row ended the process: SIGKILL, three times (twice alone)"
    assert found == ["a!", expected, "b!"]
    assert supervisor.starts == 1 + deaths


def test_a_death_before_the_first_row_is_nobodys(supervisor: RowSupervisor, tmp_path: Path) -> None:
    request = f"die:2:{tmp_path / 'deaths'}"
    assert answers(supervisor, fine(3), request=request) == [said(fine(3))]
    assert supervisor.starts == 3
    with pytest.raises(ProcessError, match="^ended the process: exit code 7, 3 times") as raised:
        answers(supervisor, fine(3), request="exit")
    assert raised.value.starting
    assert supervisor.starts == 6 - 1  # the first of the three was there already
    assert answers(supervisor, fine(3)) == [said(fine(3))]


def test_a_process_that_dies_between_streams_is_replaced(supervisor: RowSupervisor) -> None:
    answers(supervisor, fine(3))
    assert supervisor._process is not None
    pid = supervisor._process.pid
    os.kill(pid, signal.SIGKILL)
    assert supervisor._process._connection.poll(5)
    assert answers(supervisor, ["sleep"]) == [[("timeout", "the row took more than 1.5 s")]]
    assert gone(pid)


def test_where_no_row_ever_gets_an_answer_the_stream_ends(supervisor: RowSupervisor) -> None:
    with pytest.raises(ProcessError, match=f"{MOST_DEATHS} times in a row") as raised:
        answers(supervisor, ["exit"] * 300)
    assert not raised.value.starting
    assert supervisor.starts == MOST_DEATHS


def test_rows_that_are_too_many_together_go_on_in_smaller_batches(
    supervisor: RowSupervisor, tmp_path: Path
) -> None:
    asked: list[int] = []

    def smaller(request: str, rows: int) -> str:
        asked.append(rows)
        return request

    rows = fine(20)
    rows[9] = f"die:1:{tmp_path / 'deaths'}"
    assert answers(supervisor, rows, smaller=smaller) == [said(rows)]
    assert asked == [TOGETHER // 2]
    rows[9] = "exit"  # which is one row's fault
    answers(supervisor, rows, smaller=smaller)
    assert asked == [TOGETHER // 2]


def test_errors_are_raised_here_and_the_process_is_kept(supervisor: RowSupervisor) -> None:
    with pytest.raises(ValueError, match="^a row's error$") as raised:
        answers(supervisor, ["a", "raise"])
    assert 'raise ValueError("a row\'s error")' in str(raised.value.__cause__)
    assert answers(supervisor, fine(3)) == [said(fine(3))]
    assert supervisor.starts == 1


def test_an_error_of_the_input_ends_the_process(supervisor: RowSupervisor) -> None:
    def batches() -> Iterator[list[tuple[str]]]:
        yield [("a",)] * 65
        raise TypeError("not a row")

    with pytest.raises(TypeError, match="not a row"):
        list(supervisor.stream("", batches(), LIMITS, verdict))
    assert supervisor._process is not None
    assert gone(supervisor._process.pid)
    assert answers(supervisor, fine(1)) == [said(fine(1))]


def test_a_consumer_that_stops_early_does_not_wait(supervisor: RowSupervisor) -> None:
    started = time.monotonic()
    limits = Limits(seconds=100, memory=1 << 40)
    found = supervisor.stream("", [[("a",)], [("sleep",)], [("b",)]], limits, verdict)
    assert next(found) == ["a!"]
    assert supervisor._process is not None
    found.close()
    assert time.monotonic() - started < 10
    assert gone(supervisor._process.pid)


@pytest.mark.parametrize("kind", HANGS)
def test_the_process_does_not_outlive_its_parent(kind: str) -> None:
    here = Path(__file__)
    folders = [str(here.parents[3]), str(here.parents[2] / "support"), str(here.parent)]
    script = f"""
import sys
sys.path[:0] = {folders}
import test_row_supervisor as t
s = t.RowSupervisor(t.serve, ("the row",))
limits = t.Limits(seconds=100, memory=1 << 40)
found = s.stream("", [[("a",)], [({kind!r},)]], limits, t.verdict)
next(found)
print(s._process.pid, flush=True)
next(found)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        time.sleep(0.2)
        assert Path(f"/proc/{child}").exists()
        parent.kill()
    assert gone(child, or_zombie=True)  # in a container, whoever inherits it may not wait for it


def test_the_child_has_no_file_of_its_parent_open(supervisor: RowSupervisor) -> None:
    with (
        open(__file__) as file,
        contextlib.closing(
            supervisor.stream("", [[("a",)], [("sleep",)]], Limits(100, 1 << 40), verdict)
        ) as found,
    ):
        next(found)
        assert supervisor._process is not None
        links = [os.readlink(p) for p in Path(f"/proc/{supervisor._process.pid}/fd").iterdir()]
        assert file.name not in links
        assert sum(link.startswith("socket:") for link in links[3:]) == 1
