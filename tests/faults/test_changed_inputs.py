"""Runs whose pairs table, model or clock changes meanwhile."""

import os
import shutil
import signal
from pathlib import Path

import pytest
from deltalake import DeltaTable, write_deltalake
from fault_injection.fault_runs import ROWS, Answers, Case, Run, rows_of, write_pairs
from fault_injection.recovery_check import Recovery
from safetensors.numpy import load_file, save_file

pytestmark = pytest.mark.fault
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


def paused(case: Case) -> Run:
    run = case.start("between_slices:pause")
    run.wait_for_point()
    return run


def test_source_overwritten(case: Case, recovery: Recovery) -> None:
    """The run scores what it has begun with; the next one what is new, which is nothing."""
    run = paused(case)
    write_deltalake(case.pairs, DeltaTable(case.pairs).to_pyarrow_table(), mode="overwrite")
    run.go.touch()
    recovery.check("pairs overwritten while scoring", run, 0, says=None, least=ROWS)


def test_source_vacuumed(case: Case, recovery: Recovery) -> None:
    """Overwritten first: the files of the version that the run reads are gone."""
    run = paused(case)
    write_deltalake(case.pairs, DeltaTable(case.pairs).to_pyarrow_table(), mode="overwrite")
    DeltaTable(case.pairs).vacuum(0, dry_run=False, enforce_retention_duration=False)
    run.go.touch()
    recovery.check(
        "pairs overwritten and vacuumed while scoring",
        run,
        1,
        says="files of the version",
        least=1,
        most=199,
    )


def test_source_appended_to(case: Case, recovery: Recovery) -> None:
    run = paused(case)
    write_pairs(case.pairs, rows_of(ROWS), files=1)  # the same again: other rows, the same uids
    run.go.touch()
    assert run.wait() == 0, run.text()
    assert len(case.answers()) == ROWS
    second = case.start()
    assert second.wait() == 0, second.text()
    assert second.summary()["statuses"] == {"duplicate_uid": ROWS}


def test_source_deleted_from(case: Case, recovery: Recovery) -> None:
    run = paused(case)
    DeltaTable(case.pairs).delete("uid < 'uid-00100'")
    run.go.touch()
    recovery.check("rows deleted from pairs while scoring", run, 0, says=None, least=ROWS)


@pytest.mark.parametrize("change", ["gone", "changed"])
def test_model(case: Case, recovery: Recovery, tmp_path: Path, change: str) -> None:
    """The model's folder changes before the last slices, and workers that are new have to load."""
    own = tmp_path / "model"
    shutil.copytree(case.model, own)
    model, case.model = case.model, str(own)
    run = case.start("between_slices:pause")
    run.wait_for_point()
    for pid in run.descendants("warm_daemon"):
        os.kill(pid, 9)
    if change == "gone":
        shutil.rmtree(own)
    else:
        weights = own / "model.safetensors"
        save_file(
            {name: 1.5 * w for name, w in load_file(weights).items()}, weights, {"format": "pt"}
        )

    def again() -> Run:
        shutil.rmtree(own, ignore_errors=True)
        shutil.copytree(model, own)
        return case.start()

    run.go.touch()
    recovery.check(
        f"the model's folder {change} while scoring",
        run,
        2,
        says="model",
        least=1,
        most=199,
        remedy="the same command, when the model is back",
        again=again,
    )


def test_several_at_once(case: Case, recovery: Recovery, unbroken: Answers) -> None:
    runs = [case.start() for _ in range(4)]
    for run in runs[1:]:
        assert run.wait() == 0, run.text()
    recovery.check("four runs at once on a new table", runs[0], 0, says=None, least=ROWS)


@pytest.mark.skipif(FAKETIME is None, reason="needs libfaketime (apt-get install libfaketime)")
def test_clock(case: Case, recovery: Recovery) -> None:
    """The clock of the machine that goes on is two days behind."""
    run = case.start("slice")
    recovery.check(
        "driver killed; the next machine's clock is two days behind",
        run,
        128 + signal.SIGKILL,
        says=None,
        least=1,
        most=199,
        again=lambda: case.start(LD_PRELOAD=str(FAKETIME), FAKETIME="-2d"),
    )
