"""Rows that end, hold or fill the process that works on them; disks that are full."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from fault_injection.fault_runs import ROWS, Answers, Case, rows_of, write_pairs
from fault_injection.recovery_check import Recovery

pytestmark = pytest.mark.fault
LIMITS = ["--batch-timeout", "5", "--batch-memory", "300"]


@pytest.mark.parametrize(
    ("event", "poison", "status"),
    [
        ("a row that ends the process", b"poison exit", "crashed"),
        ("a row that crashes the interpreter", b"poison segfault", "crashed"),
        ("a row that never ends", b"poison spin", "timeout"),
        ("a row that takes all memory", b"poison allocate", "crashed"),
    ],
)
def test_poison_row(
    case: Case, recovery: Recovery, unbroken: Answers, event: str, poison: bytes, status: str
) -> None:
    rows = rows_of(ROWS)
    rows[100] = (rows[100][0], poison, rows[100][2])
    shutil.rmtree(case.pairs)
    write_pairs(case.pairs, rows)
    expected = unbroken | {rows[100][0]: (status, None, None, None, None)}
    run = case.start(options=LIMITS)
    recovery.check(f"{event}: `{status}`", run, 0, says=None, least=ROWS, expected=expected)


def small_disk(folder: Path, size: str) -> Sequence[str]:
    """A command before another one that sees a full disk at `folder`."""
    folder.mkdir(exist_ok=True)
    mount = f'mount -t tmpfs -o size={size} none "$0" && exec "$@"'
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, str(folder)]
    if subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("needs the right to mount (unshare --map-root-user --mount)")
    return command


def test_temp_disk_full(case: Case, recovery: Recovery) -> None:
    """The disk has room for the session's start and not for what Spark shuffles."""
    run = case.start(
        wrap=small_disk(case.folder / "small", "400k"), TMPDIR=str(case.folder / "small")
    )
    recovery.check("the disk of the temp folder full", run, 1, says="No space left", most=199)


def test_scores_disk_full(case: Case, recovery: Recovery) -> None:
    """A table on a disk that fills up; the disk is gone with the run, and so are its rows."""
    run = case.start(wrap=small_disk(case.scores, "60k"))
    recovery.check("the disk of the scores full", run, 1, says="No space left", most=199)
