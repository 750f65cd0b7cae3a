"""Reads pairs from Parquet and Delta tables with the bytes of images in a column."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from functools import partial, reduce
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from udfs.inputs import linked_images
from udfs.inputs.image_roots import NO_ROOTS, ImageRoots

from ..core.errors import UsageError, first_line
from ..core.map_in_arrow import map_in_arrow
from ..tables import delta as delta_tables
from ..tables import export_manifest, uid_origin
from ..tables.delta import quoted
from ..tables.external_table import find_column
from ..tables.pairs import uid_text
from .image_folders import spark_path
from .parquet_files import NANOSECONDS, NANOSECONDS_IN_UTC, UUID, ParquetFiles, survey
from .source_columns import LEFT_OUT, Columns, Source, rename_columns, uid_column

HIDDEN = "rows of files that Spark passes over, whose names begin with _ or ."
"""Why rows of a Parquet folder are left out."""

MOST_KINDS = 20
"""Of folders with values in their names, and of files with empty columns: each is read apart."""

_FILE = "_file_of_row"  # a column that is dropped again: the URI of the file that a row is from
_UUID = r"^(.{8})(.{4})(.{4})(.{4})(.{12})$"


def parquet(
    spark: SparkSession, path: str, columns: Columns, roots: ImageRoots = NO_ROOTS
) -> Source:
    """A Parquet file or folder with the images' bytes in a column; `roots` as in `from_columns`.

    On this machine the footers of all files are read first: a column that Spark cannot read is left
    out by name, unless it is needed. Other storage is left to Spark.
    """
    local = re.sub("^file:/+", "/", delta_tables.path_of(path))
    if delta_tables.is_uri(local) or not os.path.exists(local):
        return from_columns(_with_file(_read_by_spark(spark, path)), columns, path, roots)
    found = survey(local, f"--input {path}")
    for name in (columns.image, columns.caption, columns.uid or "uid", columns.path):
        if name and (reason := found.unreadable.get(name.lower())):
            raise UsageError(f"--input {path}: {reason}; give it one name and one type")
    if {NANOSECONDS, NANOSECONDS_IN_UTC} & {*found.converted.values()}:
        spark.conf.set("spark.sql.legacy.parquet.nanosAsLong", "true")  # else it refuses the file
    frame, folders = _read_files(spark, found, local)
    left_out = [*found.unreadable.values(), *folders]
    notes = {"columns_left_out": left_out} if left_out else {}
    source = from_columns(frame, columns, path, roots, found.images_by_path)
    manifest = export_manifest.of_files(list(found.files), "parquet")
    uids = manifest.origin_of(columns.uid) if manifest else None
    source = replace(source, rows=found.rows, notes=notes, uids=uids)
    if not found.hidden:
        return source
    rejects = spark.createDataFrame(list(found.hidden.items()), "example string, rows long").select(
        F.lit(HIDDEN).alias("reason"),
        "example",
        F.explode(F.sequence(F.lit(1), "rows")).alias("row"),
    )
    example = next(iter(found.hidden))
    return replace(
        source,
        left_out={HIDDEN: (sum(found.hidden.values()), example)},
        rejects=rejects.drop("row"),
    )


def delta(spark: SparkSession, ref: str, columns: Columns, roots: ImageRoots = NO_ROOTS) -> Source:
    """A Delta table with the images' bytes in a column; `roots` as in `from_columns`."""
    location = ref if delta_tables.is_name(ref) else delta_tables.path_of(ref)
    frame = delta_tables.read(spark, ref).withColumn(_FILE, F.lit(location))
    uids = uid_origin.of_column(spark, ref, columns.uid or "uid")
    return replace(from_columns(frame, columns, ref, roots), uids=uids)


def from_columns(
    frame: DataFrame,
    columns: Columns,
    source_name: str,
    roots: ImageRoots = NO_ROOTS,
    images_by_path: set[str] | None = None,
) -> Source:
    """`frame`, which has the column `_FILE`, with the column names of a pairs table.

    `source_path` is the row's file where the source has no path. The image is binary, or a struct
    with `bytes` and `path` as Hugging Face `datasets` writes it; where it has a path only, the
    executors read it below `roots`. `images_by_path` has the names, in lower case, of structs that
    may have such rows (None: unknown). `source_name` is for messages.
    """
    frame = frame.withColumnRenamed(LEFT_OUT, f"{LEFT_OUT}_input")
    own = frame.drop(_FILE)
    image = find_column(own, columns.image, "--image-column", source_name)
    caption = find_column(own, columns.caption, "--caption-column", source_name)
    uid = uid_column(own, columns.uid, source_name)
    has_path = columns.path or any(name.lower() == "source_path" for name in own.columns)
    path = (
        find_column(own, columns.path or "source_path", "--path-column", source_name)
        if has_path
        else None
    )
    error = next((name for name in own.columns if name.lower() == "read_error"), None)
    members = _image_members(own, image, source_name)
    if uid:
        frame = frame.withColumn(uid, uid_text(frame, uid, "--uid-column", source_name))
    # Its own read errors, if the source is a pairs table itself.
    roles = {"image": image, "caption": caption, "uid": uid, "source_path": path}
    file = F.col(_FILE).alias(_FILE)
    renamed = rename_columns(frame, roles | {"read_error": error, _FILE: _FILE})
    if path is None:
        image_path = F.col("image.path").cast("string") if "path" in members else F.lit(None)
        renamed = renamed.withColumn("source_path", F.coalesce(image_path, file))
    if "path" in members and _has_paths_only(renamed, image, images_by_path):
        if roots == NO_ROOTS:
            raise UsageError(
                f"column {image} of {source_name} has rows with the path of an image only: "
                "--image-root names the folder below which the images lie"
            )
        renamed = _with_linked_images(renamed, roots)
    elif members:
        renamed = renamed.withColumn("image", F.col("image.bytes"))
    return Source(renamed.drop(_FILE))


def _image_members(frame: DataFrame, name: str, source_name: str) -> list[str]:
    """The members of a struct of images; none for binary images. Raises UsageError for others."""
    image_type = frame.schema[name].dataType
    if isinstance(image_type, T.BinaryType):
        return []
    if isinstance(image_type, T.StructType) and "bytes" in image_type.names:
        return list(image_type.names)
    if isinstance(image_type, T.StringType):
        hint = "decode base64 first (unbase64 in SQL); for paths and captions: --source folder"
    elif isinstance(image_type, T.ArrayType) and isinstance(image_type.elementType, T.StructType):
        hint = "make it one image a row first (explode in SQL)"
    elif isinstance(image_type, T.ArrayType):
        hint = "write the bytes of each file as binary first"
    else:
        hint = "for files and captions: --source folder"
    raise UsageError(
        f"column {name} of {source_name} is {image_type.simpleString()}; --image-column needs the "
        f"bytes of images (binary, or a struct with `bytes` and `path`); {hint}"
    )


def _has_paths_only(frame: DataFrame, name: str, images_by_path: set[str] | None) -> bool:
    if images_by_path is not None and name.lower() not in images_by_path:
        return False
    return not frame.where("image.bytes IS NULL AND image.path IS NOT NULL").isEmpty()


def _with_linked_images(frame: DataFrame, roots: ImageRoots) -> DataFrame:
    """`frame` with the bytes of `image`, a struct: where it has a path only, those of the file."""
    read = partial(linked_images.with_linked_images, roots=roots)
    path = F.col("image.path").cast("string")
    folder = F.regexp_replace(_FILE, "[^/]*$", "")
    absolute = F.when(path.rlike("^(/|[A-Za-z][A-Za-z0-9+.-]*:/)"), path)
    linked = F.when(F.col("image.bytes").isNull(), F.coalesce(absolute, F.concat(folder, path)))
    if "read_error" not in frame.columns:
        frame = frame.withColumn("read_error", F.lit(None).cast("string"))
    frame = frame.withColumns({linked_images.PATH: linked, "image": F.col("image.bytes")})
    return map_in_arrow(frame, read, frame.schema).drop(linked_images.PATH)


def _read_files(spark: SparkSession, found: ParquetFiles, root: str) -> tuple[DataFrame, list[str]]:
    """The rows of the files, with `_FILE`; names of folders (`lang=en`) that are not read.

    Spark drops the files that are not in such folders where others are, and refuses folders of
    several kinds. So each kind is read by itself.
    """
    groups: dict[tuple[frozenset[str], str, tuple[str, ...]], list[str]] = {}
    for path, empty in found.files.items():
        groups.setdefault((empty, *_partition(path, root)), []).append(path)
    is_folder = os.path.isdir(root)
    try:
        if len(groups) > MOST_KINDS:
            raise ValueError("too many kinds of folders")
        parts = [
            _read_group(spark, found, paths, empty, {"basePath": base} if is_folder else {})
            for (empty, base, _), paths in groups.items()
        ]
        return _union(parts), []
    except Exception:  # folders of one name with values of different types
        by_columns: dict[frozenset[str], list[str]] = {}
        for path, empty in found.files.items():
            by_columns.setdefault(empty, []).append(path)
        options = {"recursiveFileLookup": True}
        parts = [
            _read_group(spark, found, paths, empty, options) for empty, paths in by_columns.items()
        ]
        names = dict.fromkeys(name for _, _, names in groups for name in names)
        return _union(parts), [
            f"{name} is in names of folders of different kinds" for name in names
        ]


def _partition(path: str, root: str) -> tuple[str, tuple[str, ...]]:
    """Where the folders with values in their names (`lang=en`) begin, and their columns."""
    folders = os.path.relpath(path, root).split("/")[:-1]
    begin = next((n for n, name in enumerate(folders) if "=" in name), None)
    if begin is None:
        return root, ()
    columns = (name.partition("=")[0] for name in folders[begin:] if "=" in name)
    return os.path.join(root, *folders[:begin]), tuple(columns)


def _read_group(
    spark: SparkSession,
    found: ParquetFiles,
    paths: list[str],
    empty: frozenset[str],
    options: dict[str, Any],
) -> DataFrame:
    fields = [field for field in found.schema if field.name.lower() not in empty]
    reader = spark.read.schema(T.StructType(fields)).options(**options)
    part = reader.parquet(*map(spark_path, paths))
    read = {name: _CONVERT[kind](quoted(name)) for name, kind in found.converted.items()}
    return _with_file(part).withColumns(read)


def _union(parts: list[DataFrame]) -> DataFrame:
    frame = reduce(lambda one, other: one.unionByName(other, allowMissingColumns=True), parts)
    frame.schema  # noqa: B018 - Spark Connect reads the schema only here
    return frame


def _with_file(frame: DataFrame) -> DataFrame:
    """Add `_FILE`, even if the frame has a column `_metadata` of its own."""
    file = frame.metadataColumn("_metadata").getField("file_path")
    # undo its %-escapes, in which a plus is not a space
    file = F.url_decode(F.regexp_replace(file, r"\+", "%2B"))
    return frame.withColumn(_FILE, F.regexp_replace(file, "^file:/+", "/"))


def _uuid_text(name: str) -> Column:
    return F.regexp_replace(F.lower(F.hex(name)), _UUID, "$1-$2-$3-$4-$5")


def _in_utc(name: str) -> Column:
    return F.timestamp_micros(_microseconds(name))


def _wall_clock(name: str) -> Column:
    seconds = (_microseconds(name).cast("decimal(19,0)") / F.lit(10**6)).cast("decimal(18,6)")
    since_1970 = F.make_dt_interval(F.lit(0), F.lit(0), F.lit(0), seconds)
    return F.to_timestamp_ntz(F.lit("1970-01-01 00:00:00")) + since_1970


def _microseconds(name: str) -> Column:
    """Of a column of nanoseconds, in decimals, since doubles have too few digits."""
    return F.floor(F.col(name).cast("decimal(19,0)") / F.lit(1000)).cast("long")


_CONVERT = {UUID: _uuid_text, NANOSECONDS: _wall_clock, NANOSECONDS_IN_UTC: _in_utc}


def _read_by_spark(spark: SparkSession, path: str) -> DataFrame:
    location = delta_tables.path_of(path)
    problem = ""
    # The files of a folder may differ: try all their columns, then Spark's choice, then subfolders.
    for options in ({"mergeSchema": True}, {}, {"mergeSchema": True, "recursiveFileLookup": True}):
        try:
            frame = spark.read.options(**options).parquet(location)
            frame.schema  # noqa: B018 - Spark Connect reads the schema only here
            return frame
        except Exception as error:  # from Spark, py4j or a Connect server
            problem = problem or first_line(error)
            if "PATH_NOT_FOUND" in str(error):
                raise UsageError(f"--input {path}: there is no such file or folder") from None
    raise UsageError(f"--input {path}: cannot be read as Parquet: {problem}")
