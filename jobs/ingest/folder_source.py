"""Reads pairs from a folder of images and a table of their captions."""

from __future__ import annotations

from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from ..core.errors import UsageError
from ..tables import delta as delta_tables
from . import image_folders
from .source_columns import (
    RESERVED,
    Columns,
    Source,
    find_column,
    rename_columns,
    uid_column,
)


def folder(spark: SparkSession, path: str, captions_file: str, columns: Columns) -> Source:
    """A folder of images and a table of their captions."""
    captions = image_folders.read_captions(spark, captions_file)
    caption = find_column(captions, columns.caption, "--caption-column", captions_file)
    path_column = _path_column(captions, columns.path, captions_file)
    uid = uid_column(captions, columns.uid, captions_file)
    captions = rename_columns(captions, {"caption": caption, "_file": path_column, "uid": uid})
    images = image_folders.list_images(spark, path)
    matched = image_folders.match(images, captions, "_file", path)
    total = images.agg(F.count("*"), F.coalesce(F.sum("length"), F.lit(0))).first()
    assert total is not None
    pairs = matched.pairs.count()
    unmatched_images = matched.unmatched_images.count()
    unmatched_captions = matched.unmatched_captions.count()
    notes: dict[str, Any] = {
        "images": total[0],
        "unmatched_images": unmatched_images,
        "unmatched_captions": unmatched_captions,
    }
    if unmatched_images:
        notes["unmatched_images_such_as"] = _examples(matched.unmatched_images, "source_path")
    if unmatched_captions:
        notes["unmatched_captions_such_as"] = _examples(matched.unmatched_captions, "_file")
    if not pairs:
        raise UsageError(
            f"no caption of {captions_file} names an image of {path}: its column {path_column} has "
            f"{_examples(captions, '_file')}, the folder {_examples(images, 'source_path')}"
        )
    frame = image_folders.with_images(matched.pairs, path, total[1])
    name = "file_name" if path_column.lower() in RESERVED else path_column
    taken = {name.lower() for name in frame.columns}
    return Source(
        frame.withColumnRenamed("_file", delta_tables.free_name(name, taken)), pairs, notes=notes
    )


def _path_column(captions: DataFrame, wanted: str | None, source_name: str) -> str:
    if wanted:
        return find_column(captions, wanted, "--path-column", source_name)
    usual = [name for name in image_folders.PATH_COLUMNS if name in captions.columns]
    return usual[0] if usual else find_column(captions, "file_name", "--path-column", source_name)


def _examples(frame: DataFrame, column: str) -> list[str]:
    return [row[0] for row in frame.select(column).limit(3).collect()]
