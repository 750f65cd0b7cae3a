"""Makes small tars for tests: with any members, or with samples as img2dataset writes them."""

import io
import json
import tarfile
from pathlib import Path


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
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
