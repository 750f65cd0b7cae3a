"""Reads pairs from Parquet and Delta tables with the bytes of images in a column."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from ..core.errors import UsageError, first_line
from ..tables import delta as delta_tables
from .source_columns import Columns, Source, find_column, rename_columns, uid_column


def parquet(spark: SparkSession, path: str, columns: Columns) -> Source:
    """A Parquet file or folder with the images' bytes in a column."""
    frame = _read_parquet(spark, path)
    file = F.col("_metadata.file_path")  # undo its %-escapes, in which a plus is not a space
    file = F.url_decode(F.regexp_replace(file, r"\+", "%2B"))
    default_path = F.regexp_replace(file, "^file:/+", "/")
    return Source(from_columns(frame, columns, default_path, path))


def delta(spark: SparkSession, ref: str, columns: Columns) -> Source:
    """A Delta table with the images' bytes in a column."""
    frame = delta_tables.read(spark, ref)
    default_path = F.lit(ref if delta_tables.is_name(ref) else delta_tables.path_of(ref))
    return Source(from_columns(frame, columns, default_path, ref))


def from_columns(
    frame: DataFrame, columns: Columns, default_path: Column, source_name: str
) -> DataFrame:
    """`frame` with the column names of a pairs table.

    `source_path` is `default_path` where the source has no path. The image is binary, or a struct
    with `bytes` and `path` as Hugging Face `datasets` writes it. `source_name` is for messages.
    """
    image = find_column(frame, columns.image, "--image-column", source_name)
    caption = find_column(frame, columns.caption, "--caption-column", source_name)
    uid = uid_column(frame, columns.uid, source_name)
    if columns.path:
        path: str | None = find_column(frame, columns.path, "--path-column", source_name)
    else:
        path = "source_path" if "source_path" in frame.columns else None
    image_type = frame.schema[image].dataType
    members = image_type.names if isinstance(image_type, T.StructType) else []
    if not isinstance(image_type, T.BinaryType) and "bytes" not in members:
        raise UsageError(
            f"column {image} of {source_name} is {image_type.simpleString()}; --image-column needs "
            "the bytes of images (binary, or a struct with `bytes`); "
            "for files and captions: --source folder"
        )
    caption_type = frame.schema[caption].dataType
    if isinstance(caption_type, T.ArrayType | T.MapType | T.StructType):
        raise UsageError(
            f"column {caption} of {source_name} is {caption_type.simpleString()}; "
            "--caption-column needs text, one caption per row"
        )
    # Before the columns are renamed: afterwards the file's metadata is out of reach.
    frame = frame.withColumn("_default_path", default_path)
    error = "read_error" if "read_error" in frame.columns else None
    roles = {"image": image, "caption": caption, "uid": uid, "source_path": path}
    roles["read_error"] = error  # if the source is a pairs table itself
    frame = rename_columns(frame, roles)
    if path is None:
        image_path = F.col("image.path").cast("string") if "path" in members else F.lit(None)
        frame = frame.withColumn("source_path", F.coalesce(image_path, F.col("_default_path")))
    if "bytes" in members:
        frame = frame.withColumn("image", F.col("image.bytes"))
    return frame.drop("_default_path")


def _read_parquet(spark: SparkSession, path: str) -> DataFrame:
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
