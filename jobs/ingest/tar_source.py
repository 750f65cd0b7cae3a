"""Reads pairs from WebDataset tars, many of them in parallel."""

from __future__ import annotations

import dataclasses
import functools
import os
from itertools import islice
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from udfs.inputs import tar_samples, tars
from udfs.inputs.folder_walk import walk_files
from udfs.inputs.tar_members import TAR_ENDINGS
from udfs.inputs.tar_samples import Naming

from ..core.errors import UsageError
from ..core.settings import nearest
from ..tables import delta as delta_tables
from ..tables import export_manifest
from . import image_folders
from .settings import IngestConfig
from .source_columns import DERIVED, LEFT_OUT, LEFT_OUT_TYPE, RESERVED, Source

_MIN_TASK_BYTES = 1 << 20  # tars smaller than this share a task
_LOOKED_AT = 100  # samples in which the JSON's fields are looked up

_TAR_ROWS = (
    "uid string, image binary, caption array<binary>, source_path string, read_error string, "
    f"key string, url string, metadata binary, {LEFT_OUT} {LEFT_OUT_TYPE}"
)
_NO_TAR = "files that are not tars"
_NO_NAME = "tars whose name is not UTF-8"
_NOWHERE = "links that lead to nothing, and pipes"
# What img2dataset, webdataset and Spark write beside tars: statistics, indices, captions again.
_NOTES = (".json", ".parquet", ".idx", ".md", ".yaml", ".crc", "_SUCCESS")


def webdataset(spark: SparkSession, path: str, naming: Naming | None = None) -> Source:
    """Tars as img2dataset writes them: one tar, or a folder of tars that are read in parallel.

    Args:
        spark: a session.
        path: of the tar or folder; links are followed.
        naming: how members' names and JSON are understood.

    Raises UsageError if there is no tar, or its JSON has not the fields that `naming` asks for.
    """
    naming = naming or Naming()
    listed, left_out = list_tars(spark, path)
    number, size = len(listed), sum(length for _, length in listed)
    if not listed:
        raise UsageError(f"--input {path}: there is no .tar file")
    _check_fields([name for name, _ in listed], naming)
    # From one partition, round robin: the most even way to share out the tars.
    partitions = max(1, min(number, size // _MIN_TASK_BYTES))
    paths = spark.createDataFrame(listed, "path string, length long").select("path")
    read = functools.partial(tars.read_tars, naming=naming)
    rows = paths.coalesce(1).repartition(partitions).mapInArrow(read, _TAR_ROWS)
    rows = rows.withColumn("metadata", F.col("metadata").cast("string"))
    manifest = export_manifest.of_files([name for name, _ in listed], "webdataset")
    if manifest:
        rows = _with_columns(rows, manifest.columns)
    counts = {reason: (len(names), names[0]) for reason, names in left_out.items() if names}
    rejects = [(reason, name) for reason, names in left_out.items() for name in names]
    return Source(
        rows,
        fill_uid=naming.uid_field is None,
        notes={"tars": number, "tar_bytes": size},
        left_out=counts,
        rejects=spark.createDataFrame(rejects, "reason string, example string"),
        uids=manifest.origin_of(naming.uid_field) if manifest else None,
    )


def _with_columns(rows: DataFrame, columns: T.StructType) -> DataFrame:
    """`rows` of an export's tars, with the columns that their JSON was written from."""
    own = {*RESERVED, *DERIVED, "key", "metadata"} - {"source_path"}
    fields = [field for field in columns if field.name.lower() not in own]
    texts = [T.StructField(field.name, _with_text_keys(field.dataType)) for field in fields]
    values = rows.withColumn("_values", F.from_json("metadata", T.StructType(texts)))
    typed = {f.name: F.col("_values").getField(f.name).cast(f.dataType) for f in fields}
    if "source_path" in typed:
        typed["source_path"] = F.coalesce(typed["source_path"], "source_path")
    replaced = {"url", *(name.lower() for name in typed)}
    if "metadata" not in columns.names:  # else these samples came from a tar themselves
        replaced.add("metadata")
    others = [name for name in rows.columns if name not in replaced]
    return values.select(*others, *(column.alias(name) for name, column in typed.items()))


def _with_text_keys(data_type: T.DataType) -> T.DataType:
    """The type with texts as the keys of maps, as JSON has them."""
    if isinstance(data_type, T.ArrayType):
        return T.ArrayType(_with_text_keys(data_type.elementType))
    if isinstance(data_type, T.MapType):
        return T.MapType(T.StringType(), _with_text_keys(data_type.valueType))
    if isinstance(data_type, T.StructType):
        return T.StructType(
            [T.StructField(field.name, _with_text_keys(field.dataType)) for field in data_type]
        )
    return data_type


def naming_of(config: IngestConfig) -> Naming:
    """How `config` has members' names and JSON understood. Raises UsageError where its endings
    contradict each other."""

    def endings(given: list[str]) -> tuple[str, ...]:
        return tuple(ending.lower().removeprefix(".") for ending in given)

    images, captions = endings(config.image_ending), endings(config.caption_ending)
    both = [ending for ending in images if ending in captions]
    if both:
        raise UsageError(f"--image-ending and --caption-ending are both {both[0]}")
    return Naming(
        image_endings=images,
        caption_endings=captions or Naming().caption_endings,
        last_dot=config.key_ends_at == "last-dot",
        caption_field=config.caption_column
        if "caption_column" in config.model_fields_set
        else None,
        uid_field=config.uid_column,
    )


def list_tars(spark: SparkSession, path: str) -> tuple[list[tuple[str, int]], dict[str, list[str]]]:
    """Path and length in bytes of each tar at or below `path`; and what else is there, by reason.

    Raises UsageError if there is no such file or folder.
    """
    if delta_tables.is_uri(path):
        files = image_folders.spark_files(spark, path, ())
        listed = [(row[0], row[1]) for row in files.orderBy("source_path").collect()]
        if len(listed) == 1 and path.endswith(listed[0][0].rpartition("/")[2]):
            return listed, {}  # the very file: whatever its name, it is a tar
    else:
        root = delta_tables.path_of(path)
        if os.path.isfile(root):
            return [(root, os.path.getsize(root))], {}
        if not os.path.isdir(root):
            raise UsageError(f"--input {path}: there is no such file or folder")
        names = sorted(walk_files(root, broken=True))
        listed = [(name, os.path.getsize(name) if os.path.isfile(name) else -1) for name in names]
    left_out: dict[str, list[str]] = {_NO_TAR: [], _NO_NAME: [], _NOWHERE: []}
    found = []
    for file, size in listed:
        base = file.rpartition("/")[2]
        if not base.lower().endswith(TAR_ENDINGS) or base.startswith("._"):
            if not base.startswith(".") and not base.endswith(_NOTES):
                left_out[_NO_TAR].append(file.encode("utf-8", "backslashreplace").decode())
        elif file.encode("utf-8", "replace").decode() != file:  # no table can hold such a name
            left_out[_NO_NAME].append(file.encode("utf-8", "backslashreplace").decode())
        elif size < 0:
            left_out[_NOWHERE].append(file)
        else:
            found.append((file, size))
    return found, left_out


def _check_fields(paths: list[str], naming: Naming) -> None:
    """Raise UsageError if the first samples lack a field of JSON that the user named."""
    wanted = {"--caption-column": naming.caption_field, "--uid-column": naming.uid_field}
    if not any(wanted.values()):
        return
    naming = dataclasses.replace(naming, caption_field=None, uid_field=None)
    samples = (row for path in paths for row in tars.read_tar(path, naming))
    known: dict[str, Any] = {}
    for row in islice(samples, _LOOKED_AT):
        known |= tar_samples.fields_of(row["metadata"]) or {}
    for option, name in wanted.items():
        if name is None or name.lower() in map(str.lower, known):
            continue
        guess = nearest(name, list(known))
        hint = f"did you mean {guess}?" if guess else "it names a field of the .json members"
        raise UsageError(
            f"{option} {name}: the JSON of the first samples in {paths[0]} has no such field; "
            f"{hint} (it has {', '.join(known) or 'none'})"
        )
