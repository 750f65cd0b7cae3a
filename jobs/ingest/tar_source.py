"""Reads pairs from WebDataset tars, many of them in parallel."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from udfs.inputs import tars

from ..core.errors import UsageError
from ..tables import delta as delta_tables
from . import image_folders
from .source_columns import Source

_MIN_TASK_BYTES = 1 << 20  # tars smaller than this share a task

_TAR_ROWS = (
    "uid string, image binary, caption binary, source_path string, read_error string, "
    "key string, url string, metadata binary"
)


def webdataset(spark: SparkSession, path: str) -> Source:
    """Tars as img2dataset writes them: one tar, or a folder of tars that are read in parallel."""
    listed = list_tars(spark, path)
    number, size = len(listed), sum(length for _, length in listed)
    if not listed:
        raise UsageError(f"--input {path}: there is no .tar file")
    # From one partition, round robin: the most even way to share out the tars.
    partitions = max(1, min(number, size // _MIN_TASK_BYTES))
    paths = spark.createDataFrame(listed, "path string, length long").select("path")
    rows = paths.coalesce(1).repartition(partitions).mapInArrow(tars.read_tars, _TAR_ROWS)
    texts = {name: F.col(name).cast("string") for name in ("caption", "metadata")}
    notes = {"tars": number, "tar_bytes": size}
    return Source(rows.withColumns(texts), fill_uid=True, notes=notes)


def list_tars(spark: SparkSession, path: str) -> Sequence[tuple[str, int]]:
    """Path and length in bytes of each tar at or below `path`."""
    if delta_tables.is_uri(path):
        files = image_folders.spark_files(spark, path, ("tar",))
        return [(row[0], row[1]) for row in files.orderBy("source_path").collect()]
    root = delta_tables.path_of(path)
    if os.path.isfile(root):
        return [(root, os.path.getsize(root))]
    if not os.path.isdir(root):
        raise UsageError(f"--input {path}: there is no such file or folder")
    tar_paths = [
        os.path.join(folder, name)
        for folder, _, names in os.walk(root)
        for name in names
        if name.lower().endswith(".tar")
    ]
    return [(file, os.path.getsize(file)) for file in sorted(tar_paths)]
