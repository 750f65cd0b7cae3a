"""Makes and reads small tars: with any members, or with samples as img2dataset writes them."""

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from udfs.inputs import tar_samples, tars


def write_tar(
    path: Path, members: dict[str, bytes] | Iterable[tuple[str, bytes]], packing: str = ""
) -> Path:
    """Write a tar, where `packing` is "", "gz", "bz2" or "xz"; names may repeat in a list."""
    mode: Any = f"w:{packing}"
    with tarfile.open(path, mode) as tar:
        for name, data in members.items() if isinstance(members, dict) else members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def img2dataset(samples: int) -> dict[str, bytes]:
    """The members of this many samples, each image of 5,000 bytes."""
    members: dict[str, bytes] = {}
    for n in range(samples):
        fields = {"uid": f"{n:032x}", "url": f"http://a.example/{n}", "width": 9, "caption": "no"}
        members[f"{n:05d}.jpg"] = bytes([n]) * 5000
        members[f"{n:05d}.txt"] = f"caption {n}".encode()
        members[f"{n:05d}.json"] = json.dumps(fields).encode()
    return members


def read_pairs(
    folder: Path, members: dict[str, bytes] | Iterable[tuple[str, bytes]], **naming: Any
) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """The pairs of a tar with these members, and the reasons and names of what is left out."""
    path = write_tar(folder / "x.tar", members)
    rule = tar_samples.Naming(**naming)
    rows = list(tars.read_tar(str(path), rule))
    left_out = [row["_left_out"] for row in rows if row["_left_out"]]
    names = [(row["reason"], row["example"].removeprefix(f"{path}#")) for row in left_out]
    return [row for row in rows if not row["_left_out"]], names
