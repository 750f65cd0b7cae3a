"""Matches the images in a folder with the captions in a table.

A caption names its file by the path below the folder, by the file name, or by the file name without
suffix. Whichever of these matches most captions is used for all of them. File names are joined
first and bytes are read last, so that no image goes through a shuffle.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from udfs.inputs import image_files

from ..core.errors import UsageError, first_line
from ..tables import delta

PATH_COLUMNS = ("file_name", "filename", "file", "path", "image_path", "image", "filepath")
"""Column names that caption files use for the image's path, tried in this order."""

_CAPTION_FILES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
_PARTITION_BYTES = 64 * 1024 * 1024
_FILES = "source_path string, length long"


@dataclass(frozen=True)
class MatchResult:
    """Captions with the path of their image, and the captions and images without a match."""

    pairs: DataFrame
    unmatched_captions: DataFrame
    unmatched_images: DataFrame


def read_captions(spark: SparkSession, path: str) -> DataFrame:
    """A CSV (with a header), TSV, JSONL or Parquet file of captions, or a folder of such files."""
    location = delta.path_of(path)
    suffix = os.path.splitext(location.rstrip("/"))[1].lower()
    try:
        if suffix in (".csv", ".tsv"):
            separator = "\t" if suffix == ".tsv" else ","
            return spark.read.csv(location, sep=separator, header=True, multiLine=True, escape='"')
        if suffix in (".jsonl", ".ndjson"):
            return spark.read.json(location)
        if suffix == ".parquet" or not suffix:
            return spark.read.parquet(location)
    except AnalysisException as error:
        raise UsageError(f"--captions {path}: {first_line(error)}") from None
    raise UsageError(f"--captions {path}: expected one of {' '.join(_CAPTION_FILES)}")


def list_images(spark: SparkSession, folder: str) -> DataFrame:
    """`source_path` and `length` (bytes) of the images below a folder.

    A folder on disk is listed by Python: Spark skips names that begin with `_`, as many cameras'
    do. Other folders (`s3://`, `dbfs:/` ...) are listed by Spark.
    """
    if is_local(folder):
        root = delta.path_of(folder)
        if not os.path.isdir(root):
            raise UsageError(f"--input {folder}: there is no such folder")
        return spark.createDataFrame(list(_walk(root)), _FILES)
    return spark_files(spark, folder, image_files.SUFFIXES)


def is_local(path: str) -> bool:
    """Whether Python can open `path` on this machine; otherwise it is a URI for Spark."""
    return not delta.is_uri(path)


def spark_files(spark: SparkSession, folder: str, suffixes: tuple[str, ...]) -> DataFrame:
    """`source_path` and `length` (bytes) of the files with one of the suffixes, listed by Spark."""
    patterns = ",".join("".join(f"[{c}{c.upper()}]" for c in suffix) for suffix in suffixes)
    reader = spark.read.format("binaryFile").option("recursiveFileLookup", "true")
    try:
        files = reader.option("pathGlobFilter", f"*.{{{patterns}}}").load(folder)
        return files.select(F.col("path").alias("source_path"), "length")
    except AnalysisException as error:
        raise UsageError(f"--input {folder}: {first_line(error)}") from None


def match(images: DataFrame, captions: DataFrame, path_column: str, folder: str) -> MatchResult:
    """Join captions to images by path, file name or stem. A key of two files matches neither.

    `pairs` has the columns of `captions` and `source_path`, and no image bytes yet.
    """
    root = delta.path_of(folder).rstrip("/") + "/"
    path = F.col("source_path")
    relative = F.when(path.startswith(root), F.substring(path, len(root) + 1, 2**30)).otherwise(
        path
    )
    written = F.col(delta.quoted(path_column)).cast("string")
    caption_path = F.regexp_replace(F.translate(written, "\\", "/"), r"^(\./)+", "")
    best: tuple[int, DataFrame, DataFrame] | None = None
    total = captions.count()
    for key_of in (_path, _file_name, _stem):
        keyed = images.withColumn("_key", key_of(relative))
        unique_images = keyed.groupBy("_key").agg(
            F.min("source_path").alias("_path"), F.count("*").alias("_n")
        )
        unique_images = unique_images.where("_n = 1").drop("_n")
        keyed_captions = captions.withColumn("_key", key_of(caption_path))
        matches = keyed_captions.join(unique_images, "_key", "left_semi").count()
        if best is None or matches > best[0]:
            best = matches, keyed_captions, unique_images
        if matches == total:
            break
    assert best is not None
    _, keyed_captions, unique_images = best
    pairs = (
        keyed_captions.join(unique_images, "_key", "inner")
        .withColumnRenamed("_path", "source_path")
        .drop("_key")
    )
    return MatchResult(
        pairs=pairs,
        unmatched_captions=keyed_captions.join(unique_images, "_key", "left_anti").drop("_key"),
        unmatched_images=images.join(pairs.select("source_path"), "source_path", "left_anti"),
    )


def with_images(pairs: DataFrame, folder: str, total_bytes: int) -> DataFrame:
    """Add `image`, the bytes of `source_path`, or else the reason as `read_error`."""
    if not is_local(folder):
        reader = pairs.sparkSession.read.format("binaryFile")
        files = reader.option("recursiveFileLookup", "true").load(folder)
        files = files.select(F.col("path").alias("source_path"), F.col("content").alias("image"))
        read = pairs.join(files, "source_path", "left")
        return read.withColumn("read_error", F.lit(None).cast("string"))
    partitions = max(8, total_bytes // _PARTITION_BYTES)
    fields = [*pairs.schema.fields, T.StructField("image", T.BinaryType())]
    schema = T.StructType([*fields, T.StructField("read_error", T.StringType())])
    return pairs.repartition(partitions).mapInArrow(image_files.with_images, schema)


def _walk(root: str) -> Iterator[tuple[str, int]]:
    for folder, _, names in os.walk(root):
        for name in filter(image_files.is_image, names):
            path = os.path.join(folder, name)
            with suppress(UnicodeEncodeError):  # no table can hold such a name
                yield path.encode().decode(), os.path.getsize(path) if os.path.exists(path) else 0


def _path(path: Column) -> Column:
    return path


def _file_name(path: Column) -> Column:
    return F.regexp_extract(path, r"([^/]*)$", 1)


def _stem(path: Column) -> Column:
    return F.regexp_replace(_file_name(path), rf"(?i)\.({'|'.join(image_files.SUFFIXES)})$", "")
