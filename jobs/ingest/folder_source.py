"""Reads pairs from a folder of images and a table of their captions, or text files beside them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from udfs.inputs import separated_values
from udfs.inputs.image_roots import NO_ROOTS, ImageRoots

from ..core.errors import UsageError
from ..tables import delta as delta_tables
from ..tables.external_table import find_column
from . import image_folders
from .captions import caption_files
from .captions.caption_files import TextFormat
from .captions.caption_table import CaptionTable, counted
from .image_folders import MatchResult
from .source_columns import (
    RESERVED,
    Columns,
    Source,
    rename_columns,
    uid_column,
)

AS_NAMED = TextFormat()
LINKS = "links to files elsewhere or to nothing (see --image-root), pipes, names that are not UTF-8"
SIDECAR = "sidecar"
"""What --captions is where each image has a text file of its own beside it."""

NO_IMAGE = "captions without an image"
SEVERAL_IMAGES = "captions whose name fits several images"
NO_CAPTION = "images without a caption"
OTHER_FILES = "files that are no images by their ending and that no caption names"


def folder(
    spark: SparkSession,
    path: str,
    captions_file: str,
    columns: Columns,
    form: TextFormat = AS_NAMED,
    image_endings: Sequence[str] = (),
    caption_endings: Sequence[str] = (),
    roots: ImageRoots = NO_ROOTS,
) -> Source:
    """A folder of images and their captions.

    Args:
        spark: the session.
        path: the folder.
        captions_file: a table of captions, or SIDECAR.
        columns: the names of its columns.
        form: how separated text is written, and the encoding of text.
        image_endings: endings of images beside the usual ones.
        caption_endings: endings of captions beside images; none: `txt`.
        roots: folders to which links to files may lead, beside the folders that are read.

    Raises:
        UsageError: something cannot be read, or no caption names an image.
    """
    suffixes = image_folders.image_suffixes(image_endings)
    files, links = image_folders.list_files(spark, path, suffixes, roots)
    table: CaptionTable | None = None
    if captions_file == SIDECAR:
        is_text = ~F.col("is_image") & F.col("path").rlike(_pattern(caption_endings or ("txt",)))
        paths = F.col("path").alias("_file"), F.col("source_path").alias("_text")
        matched = image_folders.match_sidecars(files, files.where(is_text).select(*paths), suffixes)
        file_column = "caption_file"
    else:
        table = caption_files.read(spark, captions_file, columns.caption, form)
        file_column = _path_column(table.frame, columns.path, captions_file)
        uid = uid_column(table.frame, columns.uid, captions_file)
        roles = {"caption": table.caption, "_file": file_column, "uid": uid}
        captions = rename_columns(table.frame, roles)
        captions = captions.withColumn("_file", F.col("_file").cast("string"))
        matched = image_folders.match(files, captions, table.rows, path, suffixes)
        table.cached.unpersist()
        place = delta_tables.path_of(captions_file).rstrip("/")
        source_path = F.col("source_path")
        is_text = (source_path == place) | source_path.startswith(f"{place}/")
    pairs = matched.captions.where("_fits = 1").drop("_fits", "_such_as")
    files = _named(files.where(~is_text), pairs)
    total_bytes, left_out, notes = _counts(files, matched)
    if not matched.pairs:
        raise _no_pairs(path, captions_file, file_column, files, matched)
    rejects = _rejects(files, matched)
    if links:
        left_out[LINKS] = len(links), links[0]
        rows = spark.createDataFrame([(LINKS, link) for link in links], rejects.schema)
        rejects = rejects.unionByName(rows)
    cached = [matched.captions]
    if table:
        notes |= table.notes
        left_out |= table.left_out
        rejects = rejects.unionByName(table.rejects) if table.rejects else rejects
    else:
        texts = counted(_with_texts(pairs, path, form.encoding), "caption")
        pairs, notes = texts.frame, notes | texts.notes
        cached.append(texts.cached)
    frame = image_folders.with_images(pairs, path, total_bytes)
    if "_error" in frame.columns:
        error = F.concat_ws("; ", "read_error", "_error")
        frame = frame.withColumn("read_error", F.nullif(error, F.lit(""))).drop("_error")
    name = "file_name" if file_column.lower() in RESERVED else file_column
    taken = {name.lower() for name in frame.columns}
    frame = frame.withColumnRenamed("_file", delta_tables.free_name(name, taken))
    return Source(
        frame, matched.pairs, notes=notes, left_out=left_out, rejects=rejects, cached=cached
    )


def _pattern(endings: Sequence[str]) -> str:
    """What a path with one of the endings matches, with or without their dot, in any case."""
    return rf"(?i)\.({'|'.join(re.escape(ending.removeprefix('.')) for ending in endings)})$"


def _path_column(captions: DataFrame, wanted: str | None, source_name: str) -> str:
    names = {name.lower(): name for name in captions.columns}
    usual = [names[name] for name in caption_files.PATH_COLUMNS if name in names]
    if usual and not wanted:
        name = usual[0]
    else:
        name = find_column(captions, wanted or "file_name", "--path-column", source_name)
    kind = captions.schema[name].dataType
    if isinstance(kind, T.ArrayType | T.MapType | T.StructType):
        raise UsageError(
            f"column {name} of {source_name} is {kind.simpleString()}; "
            "--path-column needs text, the file of one image per row"
        )
    return name


def _named(files: DataFrame, pairs: DataFrame) -> DataFrame:
    """`files` with a column `named`: whether a caption names the file and no other."""
    named = pairs.select("source_path").distinct().withColumn("named", F.lit(True))
    found = files.join(named, "source_path", "left")
    return found.withColumn("named", F.coalesce("named", F.lit(False)))


def _counts(
    files: DataFrame, matched: MatchResult
) -> tuple[int, dict[str, tuple[int, str]], dict[str, Any]]:
    """The bytes of the images, what is left out, and the notes."""
    groups = files.groupBy("is_image", "named").agg(
        F.count("*"), F.sum("length"), F.min("source_path")
    )
    found = {(row[0], row[1]): (row[2], row[3], row[4]) for row in groups.collect()}
    number, size = (sum(found[key][place] for key in found if any(key)) for place in (0, 1))
    unmatched_images = found.get((True, False), (0, 0, ""))
    others = found.get((False, False), (0, 0, ""))
    counts = {
        NO_IMAGE: matched.unmatched,
        SEVERAL_IMAGES: matched.ambiguous,
        NO_CAPTION: unmatched_images[0],
        OTHER_FILES: others[0],
    }
    notes: dict[str, Any] = {
        "images": number,
        "unmatched_images": unmatched_images[0],
        "unmatched_captions": matched.unmatched + matched.ambiguous,
    }
    if unmatched_images[0]:
        free = files.where("is_image AND NOT named")
        notes["unmatched_images_such_as"] = _examples(free, "source_path")
    if notes["unmatched_captions"]:
        notes["unmatched_captions_such_as"] = _examples(_unmatched(matched), "_file")
    examples = {NO_CAPTION: unmatched_images[2], OTHER_FILES: others[2]}
    for reason in (NO_IMAGE, SEVERAL_IMAGES):
        if counts[reason]:
            of_reason = _unmatched(matched).where(F.col("reason") == reason)
            examples[reason] = _examples(of_reason, "example")[0]
    left_out = {name: (count, examples[name]) for name, count in counts.items() if count}
    return size, left_out, notes


def _unmatched(matched: MatchResult) -> DataFrame:
    """Captions that do not name one image, with `_file`, `_such_as`, `reason` and `example`."""
    name = F.coalesce("_file", F.lit("(no name)"))
    several = F.col("_fits") > 1
    return matched.captions.where("_fits <> 1").select(
        name.alias("_file"),
        "_such_as",
        F.when(several, SEVERAL_IMAGES).otherwise(NO_IMAGE).alias("reason"),
        F.when(several, F.concat(name, F.lit(": "), "_such_as")).otherwise(name).alias("example"),
    )


def _rejects(files: DataFrame, matched: MatchResult) -> DataFrame:
    reason = F.when(F.col("is_image"), NO_CAPTION).otherwise(OTHER_FILES)
    unnamed = files.where("NOT named").select(
        reason.alias("reason"), F.col("source_path").alias("example")
    )
    return unnamed.unionByName(_unmatched(matched).select("reason", "example"))


def _no_pairs(
    path: str, captions_file: str, column: str, files: DataFrame, matched: MatchResult
) -> UsageError:
    if captions_file == SIDECAR:
        return UsageError(
            f"no text file in {path} is beside an image of its name: "
            f"it has {_examples(files.where('is_image'), 'path')}; "
            "for other endings of the texts: --caption-ending"
        )
    if matched.ambiguous:
        row = _unmatched(matched).where(F.col("reason") == SEVERAL_IMAGES).first()
        assert row is not None
        return UsageError(
            f"{captions_file}: names are ambiguous: {row['_such_as']} (its column {column} has "
            f"{row['_file']}); it needs the paths of images below {path}"
        )
    return UsageError(
        f"no caption of {captions_file} names an image of {path}: its column {column} has "
        f"{_examples(_unmatched(matched), '_file')}, the folder {_examples(files, 'source_path')}"
    )


def _with_texts(pairs: DataFrame, folder: str, encoding: str) -> DataFrame:
    """`pairs` with `caption`, the text of the file `_text`, or the reason as `_error`."""
    if image_folders.is_local(folder):
        pairs = pairs.withColumn("content", F.lit(None).cast("binary"))
    else:
        reader = pairs.sparkSession.read.format("binaryFile").option("recursiveFileLookup", "true")
        texts = reader.load(image_folders.spark_path(folder))
        texts = texts.select(F.col("path").alias("_text"), "content")
        pairs = pairs.join(texts, "_text", "left")
    pairs = pairs.select("_file", "source_path", F.col("_text").alias("path"), "content")
    read = separated_values.texts_of_files(encoding)
    schema = "_file string, source_path string, caption string, _error string"
    return pairs.mapInArrow(read, schema)


def _examples(frame: DataFrame, column: str) -> list[str]:
    return [row[0] for row in frame.select(column).limit(3).collect()]
