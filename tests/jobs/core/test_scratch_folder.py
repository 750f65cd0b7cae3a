"""Scratch folders: what a start removes and what it leaves; in the end a killed run leaves none."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.core import scratch_folder

CHECKOUT = Path(__file__).parents[3]

# Makes a scratch folder in sys.argv[1], forks a child that outlives it, and says that it is ready.
_OWNER = """
import os, sys, time
from pathlib import Path
from jobs.core import scratch_folder
folder = scratch_folder.of_this_process(Path(sys.argv[1]))
(folder / "spark").mkdir()
(folder / "spark" / "block").write_text("block")
if os.fork() == 0:
    print(os.getpid(), folder, flush=True)
    time.sleep(60)
    os._exit(0)
sys.stdin.read()
"""

# A job with blocks on disk and a Python worker, amid a task.
_JOB = """
import time
from pyspark import StorageLevel
from jobs.core.session import get_spark
spark, _ = get_spark("killed")
spark.range(1000).repartition(2).persist(StorageLevel.DISK_ONLY).count()
def work(batches):
    print("in a task", flush=True)
    time.sleep(60)
    yield from batches
spark.range(1).mapInArrow(work, "id long").collect()
"""


def start(script: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """A Python process in a group of its own, so that it can be killed with its children."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        cwd=CHECKOUT,
        env=os.environ | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_a_folder_goes_when_its_process_is_dead_and_not_before(tmp_path: Path) -> None:
    owner = start(_OWNER, str(tmp_path))
    assert owner.stdout
    child, name = owner.stdout.readline().split(maxsplit=1)
    folder = Path(name.strip())
    try:
        scratch_folder.remove_abandoned(tmp_path)
        assert (folder / "spark" / "block").is_file()
        assert folder.stat().st_mode & 0o077 == 0
        owner.kill()
        owner.wait()
        os.kill(int(child), 0)  # the forked child lives on, and does not hold the lock
        scratch_folder.remove_abandoned(tmp_path)
        assert list(tmp_path.iterdir()) == []
    finally:
        os.killpg(owner.pid, signal.SIGKILL)
        owner.communicate()


def test_a_process_that_ends_removes_its_own_folder(tmp_path: Path) -> None:
    owner = start(_OWNER, str(tmp_path))
    assert owner.stdout
    assert owner.stdin
    folder = Path(owner.stdout.readline().split(maxsplit=1)[1].strip())
    assert folder.is_dir()
    owner.stdin.close()
    owner.wait(20)
    assert list(tmp_path.iterdir()) == []
    os.killpg(owner.pid, signal.SIGKILL)
    owner.stdout.close()


def abandoned(folder: Path) -> Path:
    folder.mkdir()
    (folder / scratch_folder.LOCK_FILE).touch()
    (folder / "block").touch()
    return folder


def test_only_our_own_folders_with_a_lock_file_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temp = tmp_path / "temp"
    temp.mkdir()
    being_made = temp / "mlm-filter-new"
    being_made.mkdir()
    (being_made / f"{scratch_folder.LOCK_FILE}.new").touch()
    locks = temp / f"mlm-filter-{os.getuid()}"  # of file_locks.machine_lock
    locks.mkdir()
    (locks / "model.lock").touch()
    (temp / "mlm-filter-file").touch()
    abandoned(temp / "other-program")
    elsewhere = abandoned(tmp_path / "elsewhere")
    (temp / "mlm-filter-link").symlink_to(elsewhere)
    linked_lock = temp / "mlm-filter-linked-lock"
    linked_lock.mkdir()
    (linked_lock / scratch_folder.LOCK_FILE).symlink_to(elsewhere / scratch_folder.LOCK_FILE)
    left = sorted(temp.rglob("*"))

    dead = abandoned(temp / "mlm-filter-dead")
    (dead / "link").symlink_to(elsewhere)
    user = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: user + 1)
    scratch_folder.remove_abandoned(temp)
    assert dead.is_dir()
    monkeypatch.undo()
    scratch_folder.remove_abandoned(temp)
    assert sorted(temp.rglob("*")) == left
    assert sorted(path.name for path in elsewhere.iterdir()) == ["block", "scratch.lock"]


def test_what_a_process_adds_while_its_folder_is_removed_goes_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = abandoned(tmp_path / "mlm-filter-late")
    unlink = Path.unlink

    def unlink_late(path: Path, missing_ok: bool = False) -> None:
        unlink(path, missing_ok)
        if path.name == scratch_folder.LOCK_FILE:
            (folder / "late").touch()

    monkeypatch.setattr(Path, "unlink", unlink_late)
    scratch_folder.remove_abandoned(tmp_path)
    assert folder.is_dir()
    monkeypatch.undo()
    scratch_folder.remove_abandoned(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.spark
@pytest.mark.parametrize(
    "killed", ["driver and JVM", pytest.param("driver", marks=pytest.mark.long)]
)
def test_the_next_run_removes_what_a_killed_one_left(tmp_path: Path, killed: str) -> None:
    temp, disk = tmp_path / "a temp folder", tmp_path / "disk"
    temp.mkdir()
    environment = {"TMPDIR": str(temp), "MLM_FILTER_MASTER": "local[1]"}
    environment["JDK_JAVA_OPTIONS"] = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
    if killed == "driver":
        environment["SPARK_LOCAL_DIRS"] = str(disk)
    job = start(_JOB, **environment)
    try:
        assert job.stdout
        said = iter(job.stdout.readline, "")
        assert any("in a task" in line for line in said)
        blocks = [path for path in tmp_path.rglob("rdd_*") if path.is_file()]
        assert blocks
        (os.killpg if killed == "driver and JVM" else os.kill)(job.pid, signal.SIGKILL)
        job.wait()
        assert {path.name.partition("-")[0] for path in temp.iterdir()} == {"mlm"}
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
    done = subprocess.run(
        [sys.executable, "-m", "jobs", "query"],
        cwd=CHECKOUT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert [list(folder.iterdir()) for folder in (temp, disk) if folder.exists()] == (
        [[], []] if killed == "driver" else [[]]
    )
