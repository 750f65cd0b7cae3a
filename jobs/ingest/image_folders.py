"""Matches the images in a folder with the captions in a table.

A caption names its file by the path below the folder, by the file name, or by the file name without
suffix. Whichever of these matches most captions is used for all of them. File names are joined
first and bytes are read last, so that no image goes through a shuffle.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from udfs.inputs import image_files
from udfs.inputs.folder_walk import walk_files
from udfs.inputs.image_roots import ImageRoots

from ..core.errors import UsageError, first_line
from ..core.map_in_arrow import map_in_arrow
from ..tables import delta

_PARTITION_BYTES = 64 * 1024 * 1024
_MORE_SUFFIXES = ("jfif", "jpe", "heic", "heif", "jxl")


@dataclass(frozen=True)
class MatchResult:
    """Captions with the file that they name, and how many name one file, several, and none.

    `captions`, which is cached, has three columns more: `_fits`, how many files fit; `source_path`,
    one of them; and `_such_as`, two of them in words.
    """

    captions: DataFrame
    pairs: int
    ambiguous: int
    unmatched: int


def list_files(
    spark: SparkSession, folder: str, suffixes: Sequence[str], roots: ImageRoots
) -> tuple[DataFrame, list[str]]:
    """`source_path`, `length` (bytes), `path` (below the folder) and `is_image` (by its suffix) of
    the files below a folder; and what is left out: links, pipes, names that no table can hold.

    A folder on disk is listed by Python: Spark skips names that begin with `_`, as many cameras'
    do. Other folders (`s3://`, `dbfs:/` ...) are listed by Spark. Links to folders are followed;
    links to files only within all these folders and the `roots`.
    """
    root = delta.path_of(folder).rstrip("/") + "/"
    links: list[str] = []
    if is_local(folder):
        if not os.path.isdir(root):
            raise UsageError(f"--input {folder}: there is no such folder")
        listed: list[tuple[str, int]] = []
        found, links = _files_and_links(root, roots)
        for file in found:
            try:
                listed.append((file.encode().decode(), os.path.getsize(file)))
            except (UnicodeEncodeError, OSError):  # no table can hold such a name
                links.append(file.encode("utf-8", "backslashreplace").decode())
        # From a list, not from Arrow: that would be a local relation, which takes long to plan.
        files = spark.createDataFrame(listed, "source_path string, length long")
    else:
        files = spark_files(spark, folder, ())
    path = F.col("source_path")
    below = F.when(path.startswith(root), F.substring(path, len(root) + 1, 2**30)).otherwise(path)
    image = rf"(?i)\.({'|'.join(map(re.escape, suffixes))})$"
    hidden = r"(^|/)\._[^/]*$"  # macOS metadata about another file
    files = files.withColumn("path", below).withColumn(
        "is_image", F.col("path").rlike(image) & ~F.col("path").rlike(hidden)
    )
    return files, links


def _files_and_links(root: str, roots: ImageRoots) -> tuple[list[str], list[str]]:
    """The files below `root`, and the links among them that lead elsewhere or nowhere."""
    names = list(walk_files(root, broken=True))
    folders = {os.path.realpath(folder) for folder in {*map(os.path.dirname, names)}}

    def leads_out(name: str) -> bool:
        target = os.path.realpath(name)
        inside = os.path.dirname(target) in folders or roots.allows(target)
        return not (inside and os.path.isfile(target))

    links = [
        name
        for name in names
        if (leads_out(name) if os.path.islink(name) else not os.path.isfile(name))
    ]
    others = set(links)
    written = (link.encode("utf-8", "backslashreplace").decode() for link in links)
    return [name for name in names if name not in others], list(written)


def image_suffixes(more: Sequence[str]) -> tuple[str, ...]:
    """The suffixes of images, without the dot; `more` are the user's, with or without it."""
    own = (suffix.lower().removeprefix(".") for suffix in more)
    return tuple(dict.fromkeys((*image_files.SUFFIXES, *_MORE_SUFFIXES, *own)))


def is_local(path: str) -> bool:
    """Whether Python can open `path` on this machine; otherwise it is a URI for Spark."""
    return not delta.is_uri(path)


def spark_path(path: str) -> str:
    """`path` as Spark's readers need it: they take `[`, `{`, `*` and `?` for patterns, which they
    are only where there is no file or folder of that very name."""
    local = re.sub("^file:/+", "/", path)
    return re.sub(r"([\\\[\]{}*?,])", r"\\\1", path) if os.path.exists(local) else path


def spark_files(spark: SparkSession, folder: str, suffixes: tuple[str, ...]) -> DataFrame:
    """`source_path` and `length` (bytes) of the files with one of the suffixes (none: all files),
    listed by Spark."""
    patterns = ",".join("".join(f"[{c}{c.upper()}]" for c in suffix) for suffix in suffixes)
    reader = spark.read.format("binaryFile").option("recursiveFileLookup", "true")
    if patterns:
        reader = reader.option("pathGlobFilter", f"*.{{{patterns}}}")
    try:
        files = reader.load(spark_path(folder))
        return files.select(F.col("path").alias("source_path"), "length")
    except AnalysisException as error:
        raise UsageError(f"--input {folder}: {first_line(error)}") from None


def contents(spark: SparkSession, paths: Sequence[str]) -> DataFrame:
    """`path` and `content` of files, one a partition; null for files that Python can open."""
    if all(map(is_local, paths)):
        files = spark.createDataFrame(
            [(path, None) for path in paths], "path string, content binary"
        )
        return files.repartition(len(paths), "path")
    return spark.read.format("binaryFile").load(list(paths)).select("path", "content")


def match(
    files: DataFrame, captions: DataFrame, total: int, folder: str, suffixes: Sequence[str]
) -> MatchResult:
    """Match captions, `total` in number, with files by path, file name or stem.

    Args:
        files: the files, as `list_files` gives them.
        captions: a table whose column `_file` names files.
        total: its rows.
        folder: the folder of the files; names may begin with its path.
        suffixes: what a stem lacks.
    """
    root = delta.path_of(folder).rstrip("/") + "/"
    written = F.regexp_replace(F.translate(F.trim("_file"), "\\", "/"), r"^(\./)+", "")
    written = F.when(
        written.startswith(root), F.substring(written, len(root) + 1, 2**30)
    ).otherwise(written)
    tried: list[MatchResult] = []
    for key_of in (F.trim, _file_name, _stem(suffixes)):
        keyed = files.select(key_of(F.col("path")).alias("_key"), "source_path", "path")
        tried.append(_joined(captions.withColumn("_key", key_of(written)), keyed))
        if tried[-1].pairs == total:
            break
    best = max(tried, key=lambda found: (found.pairs, found.ambiguous))
    for found in tried:
        if found is not best:
            found.captions.unpersist()
    return best


def match_sidecars(files: DataFrame, texts: DataFrame, suffixes: Sequence[str]) -> MatchResult:
    """Match texts with the images beside them: `x.txt` with `x.jpg`, `x.jpg.txt` with `x.jpg`.

    `texts` has `_file`, the path of each text below the folder.
    """
    path = F.col("path")
    keys = F.array_distinct(F.array(path, _without(path, suffixes)))
    keyed = files.where("is_image").select(F.explode(keys).alias("_key"), "source_path", "path")
    return _joined(texts.withColumn("_key", _without(F.col("_file"), (r"[^./]+",))), keyed)


def _joined(captions: DataFrame, files: DataFrame) -> MatchResult:
    """Captions and files with the same `_key`."""
    several = F.concat_ws(", ", F.min("path"), F.max("path"))
    by_key = files.groupBy("_key").agg(
        F.count("*").alias("_fits"),
        F.min("source_path").alias("source_path"),
        several.alias("_such_as"),
    )
    found = captions.join(by_key, "_key", "left").drop("_key")
    found = found.withColumn("_fits", F.coalesce("_fits", F.lit(0))).persist()
    conditions = map(F.expr, ("_fits = 1", "_fits > 1", "_fits = 0"))
    counts = found.agg(*map(F.count_if, conditions)).first()
    assert counts is not None
    return MatchResult(found, *map(int, counts))


def with_images(pairs: DataFrame, folder: str, total_bytes: int) -> DataFrame:
    """Add `image`, the bytes of `source_path`, or else the reason as `read_error`."""
    if not is_local(folder):
        reader = pairs.sparkSession.read.format("binaryFile")
        files = reader.option("recursiveFileLookup", "true").load(spark_path(folder))
        files = files.select(F.col("path").alias("source_path"), F.col("content").alias("image"))
        read = pairs.join(files, "source_path", "left")
        return read.withColumn("read_error", F.lit(None).cast("string"))
    partitions = max(8, total_bytes // _PARTITION_BYTES)
    fields = [*pairs.schema.fields, T.StructField("image", T.BinaryType())]
    schema = T.StructType([*fields, T.StructField("read_error", T.StringType())])
    return map_in_arrow(pairs.repartition(partitions), image_files.with_images, schema)


def _file_name(path: Column) -> Column:
    return F.trim(F.regexp_extract(path, r"([^/]*)$", 1))


def _stem(suffixes: Sequence[str]) -> Callable[[Column], Column]:
    return lambda path: _without(_file_name(path), [re.escape(suffix) for suffix in suffixes])


def _without(path: Column, suffixes: Sequence[str]) -> Column:
    return F.regexp_replace(path, rf"(?i)\.({'|'.join(suffixes)})$", "")
