"""Where files can be written that are not tables: on a disk, or on what is mounted like one."""

from __future__ import annotations

from pathlib import Path

from ..core.errors import UsageError
from ..tables import delta


def on_disk(ref: str, option: str) -> Path:
    """The path of `ref` as ordinary programs open it: `file:` and `dbfs:` are taken off.

    Raises UsageError for an object store: files are put there through a mount.
    """
    scheme, colon, rest = ref.partition(":/")
    if not delta.is_uri(ref) or not colon:
        return Path(delta.path_of(ref))
    place = "/" + rest.lstrip("/")
    if scheme == "file":
        return Path(place)
    if scheme == "dbfs":
        return Path(place if place.startswith("/Volumes/") else f"/dbfs{place}")
    raise UsageError(
        f"{option} {ref}: files cannot be written to {scheme}: directly. Give the path where the"
        " store is mounted on every machine of the cluster (a volume under /Volumes, or a bucket"
        " mounted as a folder), or a disk, and copy"
    )
