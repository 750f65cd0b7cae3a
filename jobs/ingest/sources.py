"""Reads pairs from a folder of images, Parquet, Delta, tars, or the sample pairs.

Each function returns a table with `image`, `caption`, `source_path`, maybe `uid`, and all other
columns of the source.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from udfs.inputs import tars

from ..core.errors import UsageError, first_line
from ..core.settings import conf_file, nearest
from ..tables import delta as delta_tables
from . import image_folders

RESERVED = ("uid", "image", "caption", "source_path", "read_error")
"""Names with a meaning in a pairs table; a source's own columns of these names are renamed."""

DERIVED = ("image_sha", "caption_sha")
"""Computed columns of a pairs table; a source's own columns of these names are dropped."""

_MIN_TASK_BYTES = 1 << 20  # tars smaller than this share a task

_TAR_ROWS = (
    "uid string, image binary, caption binary, source_path string, read_error string, "
    "key string, url string, metadata binary"
)


@dataclass(frozen=True)
class Columns:
    """The names of the source's columns; None: the usual name, if there is such a column."""

    image: str = "image"
    caption: str = "caption"
    uid: str | None = None
    path: str | None = None


@dataclass(frozen=True)
class Source:
    """The rows of a source of pairs, and what is known about it.

    Attributes:
        frame: the rows.
        rows: how many there are, if that is known without reading them.
        fill_uid: null uids are filled in, since only some data sets of this kind have uids.
        notes: what to report about the source, for the line of JSON.
    """

    frame: DataFrame
    rows: int | None = None
    fill_uid: bool = False
    notes: dict[str, Any] = field(default_factory=dict)


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


def folder(spark: SparkSession, path: str, captions_file: str, columns: Columns) -> Source:
    """A folder of images and a table of their captions."""
    captions = image_folders.read_captions(spark, captions_file)
    caption = find_column(captions, columns.caption, "--caption-column", captions_file)
    path_column = _path_column(captions, columns.path, captions_file)
    uid = _uid_column(captions, columns.uid, captions_file)
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


def samples(spark: SparkSession, captions: Path | None = None) -> Source:
    """The sample pairs: the images of the scikit-image wheel with this project's captions."""
    image_folder = sample_folder()
    captions_file = captions or conf_file("sample_pairs.yaml")
    entries = yaml.safe_load(captions_file.read_text(encoding="utf-8"))["images"]
    missing = [entry["file"] for entry in entries if not (image_folder / entry["file"]).is_file()]
    if missing:
        raise UsageError(
            f"scikit-image lacks {', '.join(missing)}; versions 0.24 to 0.26 have them"
        )
    images = [(entry["file"], (image_folder / entry["file"]).read_bytes()) for entry in entries]
    pairs = [
        (entry["file"], pair["kind"], pair["caption"])
        for entry in entries
        for pair in entry["pairs"]
    ]
    left = spark.createDataFrame(pairs, "file string, kind string, caption string")
    right = spark.createDataFrame(images, "file string, image binary")
    frame = left.join(F.broadcast(right), "file", "inner")
    path = F.concat(F.lit("skimage/data/"), "file")
    return Source(frame.withColumn("source_path", path), len(pairs), notes={"images": len(images)})


def sample_folder() -> Path:
    """The folder of images in the installed scikit-image, which is not imported."""
    spec = importlib.util.find_spec("skimage")
    for location in (spec and spec.submodule_search_locations) or ():
        return Path(location) / "data"
    raise UsageError("the sample images come with scikit-image: pip install 'mlm-filter[samples]'")


def from_columns(
    frame: DataFrame, columns: Columns, default_path: Column, source_name: str
) -> DataFrame:
    """`frame` with the column names of a pairs table.

    `source_path` is `default_path` where the source has no path. The image is binary, or a struct
    with `bytes` and `path` as Hugging Face `datasets` writes it. `source_name` is for messages.
    """
    image = find_column(frame, columns.image, "--image-column", source_name)
    caption = find_column(frame, columns.caption, "--caption-column", source_name)
    uid = _uid_column(frame, columns.uid, source_name)
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


def find_column(frame: DataFrame, wanted: str, option: str, source_name: str) -> str:
    """The column called `wanted`, in any case. Raises UsageError, which names the most similar."""
    if wanted in frame.columns:
        return wanted
    matches = [name for name in frame.columns if name.lower() == wanted.lower()]
    if len(matches) == 1:
        return matches[0]
    guess = nearest(wanted, frame.columns)
    hint = f"did you mean {guess}?" if guess else f"choose with {option}"
    raise UsageError(
        f"{source_name} has no column {wanted}; {hint} (it has {', '.join(frame.columns)})"
    )


def rename_columns(frame: DataFrame, roles: Mapping[str, str | None]) -> DataFrame:
    """The columns in `roles` (new name -> old name or None) under their new names, then all others.

    Other columns whose name has a meaning in a pairs table become `<name>_input`.
    """
    taken = {name.lower() for name in (*frame.columns, *RESERVED)}
    columns = [F.col(delta_tables.quoted(old)).alias(new) for new, old in roles.items() if old]
    for name in frame.columns:
        new = name
        if name in roles.values() or name.lower() in DERIVED:
            continue
        if name.lower() in RESERVED:
            new = delta_tables.free_name(f"{name}_input", taken)
            taken.add(new.lower())
        columns.append(F.col(delta_tables.quoted(name)).alias(new))
    return frame.select(*columns)


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


def _path_column(captions: DataFrame, wanted: str | None, source_name: str) -> str:
    if wanted:
        return find_column(captions, wanted, "--path-column", source_name)
    usual = [name for name in image_folders.PATH_COLUMNS if name in captions.columns]
    return usual[0] if usual else find_column(captions, "file_name", "--path-column", source_name)


def _uid_column(frame: DataFrame, wanted: str | None, source_name: str) -> str | None:
    if wanted:
        return find_column(frame, wanted, "--uid-column", source_name)
    return "uid" if "uid" in frame.columns else None


def _examples(frame: DataFrame, column: str) -> list[str]:
    return [row[0] for row in frame.select(column).limit(3).collect()]
