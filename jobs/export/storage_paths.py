"""Where files can be written that are not tables: on a disk, or on what is mounted like one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pyspark.sql import SparkSession

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


@contextmanager
def settings(spark: SparkSession, values: Mapping[str, str]) -> Iterator[None]:
    """Settings of the session for the time of a `with`; afterwards they are what they were."""
    before = {key: spark.conf.get(key, None) for key in values}
    try:
        for key, value in values.items():
            spark.conf.set(key, value)
        yield
    finally:
        for key, old in before.items():
            if old is None:
                spark.conf.unset(key)
            else:
                spark.conf.set(key, old)
