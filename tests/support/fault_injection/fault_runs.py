"""Runs of the score job as processes that are killed or disturbed, and what became of the table."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deltalake import DeltaTable, write_deltalake
from tiny_pairs import GOOD

Answers = dict[str, tuple[Any, ...]]
"""uid -> status and scores."""

ROWS = 240
SLICE_ROWS = 40
LIMIT_SECONDS = 300

_TRACES = re.compile(r"Traceback|^\tat |Py4J|py4j\.|Exception in thread|^Caused by", re.MULTILINE)


@dataclass
class Run:
    """A run of the job in a session of its own, with its terminal in a file."""

    process: subprocess.Popen[bytes]
    stderr: Path
    stdout: Path
    reached: Path
    go: Path

    def wait_for_point(self) -> None:
        """Return when the run is at the point where it pauses."""
        wait_until(lambda: self.reached.exists() or self.process.poll() is not None)
        assert self.reached.exists(), self.text()

    def wait(self) -> int:
        """The exit code; as a shell has it, if a signal ended the process."""
        code = self.process.wait(LIMIT_SECONDS)
        return code if code >= 0 else 128 - code

    def text(self) -> str:
        """All that was printed for people."""
        return self.stderr.read_text(errors="replace")

    def last_line(self) -> str:
        """The last sentence for people; nothing if there is none."""
        lines = [line for line in self.text().splitlines() if line.startswith("mlm-filter")]
        return lines[-1] if lines else ""

    def summary(self) -> dict[str, Any]:
        """The line of JSON."""
        result: dict[str, Any] = json.loads(self.stdout.read_text().splitlines()[-1])
        return result

    def descendants(self, pattern: str) -> list[int]:
        """The processes below this one whose command line has a match of `pattern`."""
        found, waiting = [], [self.process.pid]
        while waiting:
            pid = waiting.pop()
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                try:
                    children = [int(child) for child in task.read_text().split()]
                except OSError:
                    continue
                waiting += children
                for child in children:
                    if re.search(pattern, command_line(child)):
                        found.append(child)
        return found

    def kill(self, pattern: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Kill the deepest of these processes; return its number."""
        wait_until(lambda: bool(self.descendants(pattern)))
        pid = self.descendants(pattern)[-1]
        os.kill(pid, number)
        return pid


def command_line(pid: int) -> str:
    """The arguments of a process, with spaces; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def wait_until(done: Callable[[], bool], seconds: float = LIMIT_SECONDS) -> None:
    """Return when `done` is true; fail after some time."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


@dataclass
class Case:
    """A pairs table, and a scores table that the runs write."""

    folder: Path
    model: str
    pairs: Path = field(init=False)
    scores: Path = field(init=False)
    temp: Path = field(init=False)
    options: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    number: int = 0

    def __post_init__(self) -> None:
        self.pairs, self.scores = self.folder / "pairs", self.folder / "scores"
        self.temp = self.folder / "temp"
        self.temp.mkdir(parents=True)

    def start(
        self,
        point: str = "none",
        *,
        options: Sequence[str] = (),
        before: Callable[[], None] | None = None,
        wrap: Sequence[str] = (),
        **environment: str,
    ) -> Run:
        """Start the job; `before` runs in its process first, `wrap` is a command before it."""
        self.number += 1
        reached, go = (self.folder / f"{name}-{self.number}" for name in ("reached", "go"))
        stderr, stdout = (self.folder / f"{name}-{self.number}" for name in ("stderr", "stdout"))
        arguments = ["score", "--pairs", str(self.pairs), "--scores", str(self.scores)]
        arguments += ["--model", self.model, "--slice-rows", str(SLICE_ROWS)]
        command = [
            sys.executable,
            "-m",
            "tests.support.fault_injection.fault_points",
            point,
            *arguments,
        ]
        process = subprocess.Popen(
            [*wrap, *command, *self.options, *options],
            stdin=subprocess.DEVNULL,
            stdout=stdout.open("wb"),
            stderr=stderr.open("wb"),
            start_new_session=True,
            preexec_fn=before,
            env=os.environ
            | {
                "PYTHONPATH": os.getcwd(),
                "TMPDIR": str(self.temp),
                "OMP_NUM_THREADS": "1",
                "MLM_FILTER_MASTER": "local[2]",
                "MLM_FILTER_DRIVER_MEMORY": "1g",
                "FAULT_REACHED": str(reached),
                "FAULT_GO": str(go),
                # As in the other tests: the workers are forked with everything imported.
                "JDK_JAVA_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
                " -Dspark.sql.codegen.wholeStage=false -Dspark.sql.codegen.factoryMode=NO_CODEGEN"
                " -Dspark.python.daemon.module=tests.support.warm_daemon",
            }
            | self.environment
            | environment,
        )
        return Run(process, stderr, stdout, reached, go)

    def rows(self) -> list[dict[str, Any]]:
        """The scores table as it is."""
        if not DeltaTable.is_deltatable(str(self.scores)):
            return []
        found: list[dict[str, Any]] = DeltaTable(self.scores).to_pyarrow_table().to_pylist()
        return found

    def answers(self) -> Answers:
        """uid -> status and scores. Fails if a row is there twice."""
        rows = self.rows()
        doubled = [uid for uid, count in Counter(row["uid"] for row in rows).items() if count > 1]
        assert not doubled, f"{len(doubled)} rows are there twice"
        return {row["uid"]: (row["status"], *(row[m] for m in METRICS)) for row in rows}

    def orphans(self) -> list[str]:
        """Data files in the folder of the scores table that no version of it knows."""
        known = {path.name for path in _files_of_log(self.scores)}
        return sorted(path.name for path in self.scores.glob("*.parquet") if path.name not in known)


METRICS = ("itm", "odf", "ctq", "su")


def _files_of_log(table: Path) -> Iterator[Path]:
    for entry in (table / "_delta_log").glob("*.json"):
        for line in entry.read_text().splitlines():
            added = json.loads(line).get("add")
            if added:
                yield table / added["path"]


def same(found: Answers, expected: Answers) -> bool:
    """Whether two runs gave the same answers, to a thousandth of a point."""
    return found.keys() == expected.keys() and all(
        first[0] == second[0]
        and all(
            a is b or (a is not None and b is not None and math.isclose(a, b, abs_tol=1e-3))
            for a, b in zip(first[1:], second[1:], strict=True)
        )
        for first, second in ((found[uid], expected[uid]) for uid in expected)
    )


def rows_of(count: int) -> list[tuple[str, bytes, str]]:
    """Good rows with captions of unlike length."""
    return [(f"uid-{i:05}", GOOD[i % 20], f"caption {i} " * (1 + i % 5)) for i in range(count)]


def write_pairs(path: Path, rows: Sequence[tuple[str, bytes, str]], files: int = 3) -> None:
    """Write a pairs table of some data files, without Spark."""
    import pyarrow as pa

    for number in range(files):
        part = rows[number::files]
        columns = {"uid": [r[0] for r in part], "image": [r[1] for r in part]}
        table = pa.table(columns | {"caption": [r[2] for r in part]})
        write_deltalake(path, table, mode="append")


def traces(text: str) -> list[str]:
    """What in a run's output is a trace of Python or Java."""
    return _TRACES.findall(text)
