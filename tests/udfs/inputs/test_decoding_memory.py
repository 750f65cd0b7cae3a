"""What decoding takes: the worst pictures one at a time on a machine, whatever runs beside."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fuzzed_rows import worst_picture

LARGEST = 1300 << 20
"""Bytes that the worst of all pictures takes while it is decoded; docs/security.md says so."""

DECODE = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from PIL import Image
import numpy
from udfs.inputs import images
Image.init()
files = sorted(Path(sys.argv[1]).iterdir())
print("ready", flush=True)
sys.stdin.readline()
with ThreadPoolExecutor(2) as pool:
    for picture in pool.map(lambda file: images.decode(file.read_bytes()), files):
        assert picture.size == (2048, 2048)
"""


def resident(process: subprocess.Popen[str]) -> int:
    """Bytes of memory that a process uses."""
    try:
        status = Path(f"/proc/{process.pid}/statm").read_text()
        return int(status.split()[1]) * os.sysconf("SC_PAGESIZE")
    except (OSError, IndexError):  # it has ended
        return 0


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_one_large_picture_at_a_time_is_decoded_on_a_machine(tmp_path: Path) -> None:
    for name in ("alpha", "floats", "animated"):
        (tmp_path / name).write_bytes(worst_picture(name))
    command = [sys.executable, "-c", DECODE, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen(command, **pipes) for _ in range(2)]  # type: ignore[call-overload]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    before = sum(map(resident, workers))
    for worker in workers:
        worker.stdin.write("\n")
        worker.stdin.flush()
    peak = 0
    while any(worker.poll() is None for worker in workers):
        peak = max(peak, sum(map(resident, workers)))
        time.sleep(0.005)
    assert [worker.returncode for worker in workers] == [0, 0]
    assert peak - before < LARGEST
