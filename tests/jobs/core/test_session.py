"""How a local session gets Delta Lake's JARs."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jobs.core import session

# Stands in for Spark's download: like Ivy with its cache, it fails if it runs twice at once.
_DOWNLOAD = """
import os, time
os.mkdir({busy!r})
time.sleep(1)
with open({jar!r}, "a") as jar:
    jar.write("downloaded ")
os.rmdir({busy!r})
print("file://" + {jar!r})
"""


def test_jobs_that_start_together_download_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLM_FILTER_CACHE", str(tmp_path / "cache"))
    jar = tmp_path / "io.delta_delta-1.0.jar"
    script = _DOWNLOAD.format(busy=str(tmp_path / "busy"), jar=str(jar))
    monkeypatch.setattr(session, "_RESOLVE_SCRIPT", script)
    with ThreadPoolExecutor(3) as jobs:
        futures = [jobs.submit(session._delta_jars) for _ in range(3)]
    assert [future.result() for future in futures] == [[jar]] * 3
    assert jar.read_text() == "downloaded "
    jar.unlink()  # someone emptied Ivy's cache
    assert session._delta_jars() == [jar]


def test_the_log_shows_no_control_characters() -> None:
    text = session._LOG4J.format(level="error").replace("\\\\", "\\")  # as .properties are read
    (letters,) = re.findall(r"%replace\{%m%n%ex\}\{(\[.*?\])\}", text)
    assert re.sub(letters, "?", "a 09 xyz\té\n\x1b[31m\x9b\0") == "a 09 xyz\té\n?[31m??"
