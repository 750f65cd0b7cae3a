"""Images in a folder and their captions in a table: which caption belongs to which file.

A caption names its file by the path below the folder, by the file's name, or by the name without
its ending; whichever of these finds most captions is used for all of them. Names are joined first
and bytes read last, so that no image goes through a shuffle.
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
"""Names under which caption files hold the image's path, tried in this order."""

_CAPTION_FILES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
_PARTITION_BYTES = 64 * 1024 * 1024
_FILES = "source_path string, length long"


@dataclass(frozen=True)
class Matched:
    """Captions with the path of their image, and what has no counterpart."""

    pairs: DataFrame
    unmatched_captions: DataFrame
    unmatched_images: DataFrame


def read_captions(spark: SparkSession, path: str) -> DataFrame:
    """A CSV (with a header), TSV, JSONL or Parquet file of captions, or a folder of such files."""
    place = delta.path_of(path)
    ending = os.path.splitext(place.rstrip("/"))[1].lower()
    try:
        if ending in (".csv", ".tsv"):
            separator = "\t" if ending == ".tsv" else ","
            return spark.read.csv(place, sep=separator, header=True, multiLine=True, escape='"')
        if ending in (".jsonl", ".ndjson"):
            return spark.read.json(place)
        if ending == ".parquet" or not ending:
            return spark.read.parquet(place)
    except AnalysisException as error:
        raise UsageError(f"--captions {path}: {first_line(error)}") from None
    raise UsageError(f"--captions {path}: expected one of {' '.join(_CAPTION_FILES)}")


def list_images(spark: SparkSession, folder: str) -> DataFrame:
    """`source_path`, `length` (bytes) of the images below a folder.

    A folder on a disk is walked here: Spark leaves out names that begin with `_`, as many cameras'
    do. Elsewhere (`s3://`, `dbfs:/` ...) Spark does it.
    """
    if is_local(folder):
        root = delta.path_of(folder)
        if not os.path.isdir(root):
            raise UsageError(f"--input {folder}: there is no such folder")
        return spark.createDataFrame(list(_walk(root)), _FILES)
    return spark_files(spark, folder, image_files.SUFFIXES)


def is_local(path: str) -> bool:
    """Whether `path` is one that Python can open here, rather than a URI for Spark."""
    return not delta.is_uri(path)


def spark_files(spark: SparkSession, folder: str, suffixes: tuple[str, ...]) -> DataFrame:
    """`source_path`, `length` of the files with one of the endings, as Spark lists them."""
    endings = ",".join("".join(f"[{c}{c.upper()}]" for c in suffix) for suffix in suffixes)
    reader = spark.read.format("binaryFile").option("recursiveFileLookup", "true")
    try:
        found = reader.option("pathGlobFilter", f"*.{{{endings}}}").load(folder)
        return found.select(F.col("path").alias("source_path"), "length")
    except AnalysisException as error:
        raise UsageError(f"--input {folder}: {first_line(error)}") from None


def match(images: DataFrame, captions: DataFrame, path_column: str, folder: str) -> Matched:
    """Join captions to images by path, name or stem: where two files have a key, neither has it.

    `pairs` has the columns of `captions` and `source_path`; it holds no bytes yet.
    """
    root = delta.path_of(folder).rstrip("/") + "/"
    path = F.col("source_path")
    below = F.when(path.startswith(root), F.substring(path, len(root) + 1, 2**30)).otherwise(path)
    named = F.col(delta.quoted(path_column)).cast("string")
    given = F.regexp_replace(F.translate(named, "\\", "/"), r"^(\./)+", "")
    best: tuple[int, DataFrame, DataFrame] | None = None
    total = captions.count()
    for level in (_whole, _name, _stem):
        keyed = images.withColumn("_key", level(below))
        lone = keyed.groupBy("_key").agg(
            F.min("source_path").alias("_path"), F.count("*").alias("_n")
        )
        lone = lone.where("_n = 1").drop("_n")
        sought = captions.withColumn("_key", level(given))
        found = sought.join(lone, "_key", "left_semi").count()
        if best is None or found > best[0]:
            best = found, sought, lone
        if found == total:
            break
    assert best is not None
    _, sought, lone = best
    pairs = (
        sought.join(lone, "_key", "inner").withColumnRenamed("_path", "source_path").drop("_key")
    )
    return Matched(
        pairs=pairs,
        unmatched_captions=sought.join(lone, "_key", "left_anti").drop("_key"),
        unmatched_images=images.join(pairs.select("source_path"), "source_path", "left_anti"),
    )


def with_images(pairs: DataFrame, folder: str, total_bytes: int) -> DataFrame:
    """`pairs` with the bytes of `source_path` as `image`, or the reason why not as `read_error`."""
    if not is_local(folder):
        reader = pairs.sparkSession.read.format("binaryFile")
        content = reader.option("recursiveFileLookup", "true").load(folder)
        content = content.select(
            F.col("path").alias("source_path"), F.col("content").alias("image")
        )
        read = pairs.join(content, "source_path", "left")
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


def _whole(path: Column) -> Column:
    return path


def _name(path: Column) -> Column:
    return F.regexp_extract(path, r"([^/]*)$", 1)


def _stem(path: Column) -> Column:
    return F.regexp_replace(_name(path), rf"(?i)\.({'|'.join(image_files.SUFFIXES)})$", "")
