"""Turns an output path into one that ordinary programs can open, on a disk or a mounted store."""

from __future__ import annotations

from pathlib import Path

from ..core.errors import UsageError
from ..tables import delta


def local_path(ref: str, option: str) -> Path:
    """`ref` as a path that ordinary programs can open, without `file:` or `dbfs:`.

    Raises UsageError for an object store, which has to be mounted first.
    """
    scheme, colon, rest = ref.partition(":/")
    if not delta.is_uri(ref) or not colon:
        return Path(delta.path_of(ref))
    path = "/" + rest.lstrip("/")
    if scheme == "file":
        return Path(path)
    if scheme == "dbfs":
        return Path(path if path.startswith("/Volumes/") else f"/dbfs{path}")
    raise UsageError(
        f"{option} {ref}: files cannot be written to {scheme}: directly. Give the path where the"
        " store is mounted on every machine of the cluster (a volume under /Volumes, or a bucket"
        " mounted as a folder), or write to a disk and copy"
    )
