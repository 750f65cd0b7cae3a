"""Runs of which a process is killed, at every point of its way."""

import os
import signal
import time
from functools import partial

import pytest
from fault_injection.fault_runs import Case, wait_until
from fault_injection.recovery_check import Recovery

pytestmark = pytest.mark.fault
JAVA = r"^\S*java "
WORKER = r"warm_daemon"
KILLED = 128 + signal.SIGKILL


def test_driver_before_the_plan(case: Case, recovery: Recovery) -> None:
    run = case.start("plan")
    recovery.check("driver killed before the plan", run, KILLED, says=None, most=0)


def test_driver_while_the_model_loads(case: Case, recovery: Recovery) -> None:
    run = case.start("loading")
    recovery.check("driver killed while the model loads", run, KILLED, says=None, most=0)


def test_driver_in_a_slice(case: Case, recovery: Recovery) -> None:
    run = case.start("slice")
    recovery.check(
        "driver killed in the middle of a slice", run, KILLED, says=None, least=1, most=199
    )


def test_driver_between_files_and_commit(case: Case, recovery: Recovery) -> None:
    """The data files of a slice are there, and no version of the table has them."""

    def files() -> int:
        return len(list(case.scores.glob("*.parquet")))

    for _ in range(8):
        run = case.start()
        wait_until(lambda: len(case.rows()) > 0)
        # The slice's files are written by two tasks; the commit follows within milliseconds.
        wait_until(partial(lambda known: files() > known, files()))
        os.killpg(run.process.pid, signal.SIGKILL)
        run.wait()
        if case.orphans():
            break
    assert case.orphans()
    recovery.check(
        "driver and JVM killed between data files and commit",
        run,
        KILLED,
        says=None,
        least=1,
        remedy="the same command; `maintain` removes the files that no version has",
    )


def test_driver_after_the_commit(case: Case, recovery: Recovery) -> None:
    run = case.start("committed")
    recovery.check(
        "driver killed after a slice's commit", run, KILLED, says=None, least=1, most=199
    )


def test_driver_while_the_run_is_recorded(case: Case, recovery: Recovery) -> None:
    run = case.start("recording")
    recovery.check(
        "driver killed while the run is recorded",
        run,
        KILLED,
        says=None,
        least=240,
        remedy="nothing; the runs table lacks the run",
    )


def test_jvm(case: Case, recovery: Recovery) -> None:
    run = case.start("slice:pause")
    run.wait_for_point()
    run.kill(JAVA)
    run.go.touch()
    recovery.check("JVM killed", run, 1, says="the Java process has ended", least=1, most=199)


def test_executor(case: Case, recovery: Recovery) -> None:
    case.environment["MLM_FILTER_MASTER"] = "local-cluster[2,1,1024]"
    run = case.start("slice:pause")
    run.wait_for_point()
    run.kill("CoarseGrainedExecutorBackend")
    run.go.touch()
    recovery.check("an executor killed", run, 0, says=None, least=240)


def test_python_worker(case: Case, recovery: Recovery) -> None:
    run = case.start("slice:pause")
    run.wait_for_point()
    daemon, *workers = run.descendants(WORKER)
    for pid in workers or [daemon]:
        os.kill(pid, signal.SIGKILL)
    run.go.touch()
    recovery.check("Python workers killed", run, 0, says=None, least=240)


def test_ctrl_c(case: Case, recovery: Recovery) -> None:
    run = case.start("slice:pause")
    run.wait_for_point()
    os.killpg(run.process.pid, signal.SIGINT)  # as a terminal does
    run.go.touch()
    recovery.check("Ctrl-C", run, 130, says="interrupted", least=1, most=199)


def test_ctrl_c_twice(case: Case, recovery: Recovery) -> None:
    run = case.start("slice:pause")
    run.wait_for_point()
    os.killpg(run.process.pid, signal.SIGINT)
    run.go.touch()
    wait_until(lambda: "interrupted" in run.text())
    os.killpg(run.process.pid, signal.SIGINT)
    began = time.monotonic()
    recovery.check("Ctrl-C twice", run, 130, says="interrupted", least=1, most=199)
    assert time.monotonic() - began < 120


def test_spot_notice(case: Case, recovery: Recovery) -> None:
    run = case.start("slice:pause")
    run.wait_for_point()
    os.kill(run.process.pid, signal.SIGTERM)
    run.go.touch()
    recovery.check("SIGTERM (a spot notice)", run, 143, says="terminated", least=1, most=199)
