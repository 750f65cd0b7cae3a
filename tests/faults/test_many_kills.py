"""Random processes of a run are killed at random moments, again and again."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fault_injection.fault_runs import Case, Run, rows_of, same, traces, write_pairs

pytestmark = pytest.mark.fault
KILLS = int(os.environ.get("MLM_FILTER_KILLS", "12"))
ROWS = int(os.environ.get("MLM_FILTER_KILLED_ROWS", "3000"))
TARGETS = {
    "driver": "",
    "JVM": r"^\S*java ",
    "executor": "CoarseGrainedExecutorBackend",
    "Python worker": "warm_daemon",
}


def kill_one(run: Run, chance: random.Random) -> str:
    """Kill one process, or the driver where there is no such one; return which kind."""
    kind = chance.choice(list(TARGETS))
    pids = run.descendants(TARGETS[kind]) if TARGETS[kind] else []
    pid = chance.choice(pids) if pids else run.process.pid
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return "nothing"
    return kind if pids else "driver"


@pytest.mark.parametrize("master", ["local[2]", "local-cluster[2,1,1024]"])
def test_many_kills(tmp_path: Path, model: str, master: str) -> None:
    chance = random.Random(f"{master} {KILLS}")
    whole = Case(tmp_path / "whole", model)
    write_pairs(whole.pairs, rows_of(ROWS))
    options = ["--slice-rows", "250"]
    assert whole.start(options=options).wait() == 0

    case = Case(tmp_path / "killed", model)
    write_pairs(case.pairs, rows_of(ROWS))
    case.environment["MLM_FILTER_MASTER"] = master
    killed: list[str] = []
    while len(killed) < KILLS // 2:
        run = case.start(options=options)
        while run.process.poll() is None and len(killed) < KILLS // 2:
            time.sleep(chance.uniform(5, 25))
            if run.process.poll() is None:
                killed.append(kill_one(run, chance))
        run.wait()
        assert not traces(run.text()), run.text()
        if len(case.rows()) == ROWS:
            break
    last = case.start(options=options)
    assert last.wait() == 0, last.text()
    print(f"{master}: {killed}")
    assert same(case.answers(), whole.answers())
    assert not [path for path in case.temp.iterdir() if path.name != f"mlm-filter-{os.getuid()}"]

    maintain = [sys.executable, "-m", "jobs", "maintain", "--scores", str(case.scores)]
    subprocess.run([*maintain, "--retain-hours", "0"], check=True, capture_output=True)
    assert case.orphans() == []
    assert same(case.answers(), whole.answers())
