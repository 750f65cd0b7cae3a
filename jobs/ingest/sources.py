"""Where pairs come from: folders, Parquet, Delta, tars, the samples.

Each gives a table with `image`, `caption`, `source_path`, maybe `uid`, and what else it has.
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
"""Names with a meaning in a pairs table; a source's own columns of these names give way."""

DERIVED = ("image_sha", "caption_sha")
"""Columns of a pairs table that are computed; those of a source are left out."""

_TARS_IN_FLIGHT_BYTES = 1 << 20  # tars smaller than this share a task


_TAR_ROWS = (
    "uid string, image binary, caption binary, source_path string, read_error string, "
    "key string, url string, metadata binary"
)


@dataclass(frozen=True)
class Columns:
    """What the source calls its columns; None: take the usual one if it is there."""

    image: str = "image"
    caption: str = "caption"
    uid: str | None = None
    path: str | None = None


@dataclass(frozen=True)
class Source:
    """The rows of a source, their number where that is known, and what to tell of it.

    `fill_uid`: a row without uid is no fault, as only some of the data sets of that kind have uids.
    """

    frame: DataFrame
    rows: int | None = None
    fill_uid: bool = False
    notes: dict[str, Any] = field(default_factory=dict)


def parquet(spark: SparkSession, path: str, columns: Columns) -> Source:
    """A Parquet file or folder with the images' bytes in a column."""
    frame = _read_parquet(spark, path)
    file = F.col("_metadata.file_path")  # its %-escapes are undone; a plus is no space here
    file = F.url_decode(F.regexp_replace(file, r"\+", "%2B"))
    where = F.regexp_replace(file, "^file:/+", "/")
    return Source(from_columns(frame, columns, where, path))


def delta(spark: SparkSession, ref: str, columns: Columns) -> Source:
    """A Delta table with the images' bytes in a column."""
    frame = delta_tables.read(spark, ref)
    where = F.lit(ref if delta_tables.is_name(ref) else delta_tables.path_of(ref))
    return Source(from_columns(frame, columns, where, ref))


def folder(spark: SparkSession, path: str, captions_file: str, columns: Columns) -> Source:
    """A folder of images and a table of their captions."""
    captions = image_folders.read_captions(spark, captions_file)
    caption = find_column(captions, columns.caption, "--caption-column", captions_file)
    named = _path_column(captions, columns.path, captions_file)
    uid = _uid_column(captions, columns.uid, captions_file)
    captions = make_room(captions, {"caption": caption, "_file": named, "uid": uid})
    images = image_folders.list_images(spark, path)
    matched = image_folders.match(images, captions, "_file", path)
    total = images.agg(F.count("*"), F.coalesce(F.sum("length"), F.lit(0))).first()
    assert total is not None
    pairs, lost = matched.pairs.count(), matched.unmatched_captions.count()
    alone = matched.unmatched_images.count()
    notes: dict[str, Any] = {
        "images": total[0],
        "unmatched_images": alone,
        "unmatched_captions": lost,
    }
    if alone:
        notes["unmatched_images_such_as"] = _some(matched.unmatched_images, "source_path")
    if lost:
        notes["unmatched_captions_such_as"] = _some(matched.unmatched_captions, "_file")
    if not pairs:
        raise UsageError(
            f"no caption of {captions_file} names an image of {path}: its column {named} has "
            f"{_some(captions, '_file')}, the folder {_some(images, 'source_path')}"
        )
    frame = image_folders.with_images(matched.pairs, path, total[1])
    kept = "file_name" if named.lower() in RESERVED else named
    taken = {name.lower() for name in frame.columns}
    return Source(
        frame.withColumnRenamed("_file", delta_tables.free_name(kept, taken)), pairs, notes=notes
    )


def webdataset(spark: SparkSession, path: str) -> Source:
    """Tars as img2dataset writes them: a tar, or a folder of them, read in parallel by tar."""
    found = list_tars(spark, path)
    number, size = len(found), sum(length for _, length in found)
    if not found:
        raise UsageError(f"--input {path}: there is no .tar file")
    # One partition, then dealt round robin: as even as tars can be shared out.
    partitions = max(1, min(number, size // _TARS_IN_FLIGHT_BYTES))
    listed = spark.createDataFrame(found, "path string, length long").select("path")
    rows = listed.coalesce(1).repartition(partitions).mapInArrow(tars.rows_of, _TAR_ROWS)
    texts = {name: F.col(name).cast("string") for name in ("caption", "metadata")}
    notes = {"tars": number, "tar_bytes": size}
    return Source(rows.withColumns(texts), fill_uid=True, notes=notes)


def samples(spark: SparkSession, captions: Path | None = None) -> Source:
    """The sample pairs: the images of the scikit-image wheel with this project's captions."""
    pictures = sample_folder()
    listed = captions or conf_file("sample_pairs.yaml")
    entries = yaml.safe_load(listed.read_text(encoding="utf-8"))["images"]
    missing = [entry["file"] for entry in entries if not (pictures / entry["file"]).is_file()]
    if missing:
        raise UsageError(
            f"scikit-image lacks {', '.join(missing)}; versions 0.24 to 0.26 have them"
        )
    images = [(entry["file"], (pictures / entry["file"]).read_bytes()) for entry in entries]
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
    """Where the installed scikit-image keeps its images; it is not imported."""
    found = importlib.util.find_spec("skimage")
    for place in (found and found.submodule_search_locations) or ():
        return Path(place) / "data"
    raise UsageError("the sample images come with scikit-image: pip install 'mlm-filter[samples]'")


def from_columns(frame: DataFrame, columns: Columns, where: Column, place: str) -> DataFrame:
    """`frame` with its columns under the names of a pairs table; `where` if it has no path column.

    The image is binary, or a struct with `bytes` and `path` as Hugging Face datasets has it.
    """
    image = find_column(frame, columns.image, "--image-column", place)
    caption = find_column(frame, columns.caption, "--caption-column", place)
    uid = _uid_column(frame, columns.uid, place)
    if columns.path:
        path: str | None = find_column(frame, columns.path, "--path-column", place)
    else:
        path = "source_path" if "source_path" in frame.columns else None
    kind = frame.schema[image].dataType
    members = kind.names if isinstance(kind, T.StructType) else []
    if not isinstance(kind, T.BinaryType) and "bytes" not in members:
        raise UsageError(
            f"column {image} of {place} is {kind.simpleString()}; --image-column needs the bytes "
            "of images (binary, or a struct with `bytes`); for files and captions: --source folder"
        )
    text = frame.schema[caption].dataType
    if isinstance(text, T.ArrayType | T.MapType | T.StructType):
        raise UsageError(
            f"column {caption} of {place} is {text.simpleString()}; --caption-column needs text, "
            "one caption a row"
        )
    # Before the renaming: afterwards the file's own metadata cannot be named.
    frame = frame.withColumn("_where", where)
    error = "read_error" if "read_error" in frame.columns else None
    roles = {"image": image, "caption": caption, "uid": uid, "source_path": path}
    roles["read_error"] = error  # where the source is a pairs table itself
    frame = make_room(frame, roles)
    if path is None:
        own = F.col("image.path").cast("string") if "path" in members else F.lit(None)
        frame = frame.withColumn("source_path", F.coalesce(own, F.col("_where")))
    if "bytes" in members:
        frame = frame.withColumn("image", F.col("image.bytes"))
    return frame.drop("_where")


def find_column(frame: DataFrame, wanted: str, option: str, place: str) -> str:
    """The column that `wanted` names, in any case. Raises UsageError that names the nearest."""
    if wanted in frame.columns:
        return wanted
    found = [name for name in frame.columns if name.lower() == wanted.lower()]
    if len(found) == 1:
        return found[0]
    guess = nearest(wanted, frame.columns)
    hint = f"did you mean {guess}?" if guess else f"choose with {option}"
    raise UsageError(f"{place} has no column {wanted}; {hint} (it has {', '.join(frame.columns)})")


def make_room(frame: DataFrame, roles: Mapping[str, str | None]) -> DataFrame:
    """Columns of `roles` (new name -> column, or None for no such), then those without a role.

    Of the latter, those whose name has a meaning in a pairs table become `<name>_input`.
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
    """Path and length of each tar at or below `path`."""
    if delta_tables.is_uri(path):
        listed = image_folders.spark_files(spark, path, ("tar",))
        return [(row[0], row[1]) for row in listed.orderBy("source_path").collect()]
    root = delta_tables.path_of(path)
    if os.path.isfile(root):
        return [(root, os.path.getsize(root))]
    if not os.path.isdir(root):
        raise UsageError(f"--input {path}: there is no such file or folder")
    found = [
        os.path.join(folder, name)
        for folder, _, names in os.walk(root)
        for name in names
        if name.lower().endswith(".tar")
    ]
    return [(file, os.path.getsize(file)) for file in sorted(found)]


def _read_parquet(spark: SparkSession, path: str) -> DataFrame:
    place = delta_tables.path_of(path)
    problem = ""
    # Files of one folder differ: take all columns, then Spark's choice; then look into subfolders.
    for options in ({"mergeSchema": True}, {}, {"mergeSchema": True, "recursiveFileLookup": True}):
        try:
            frame = spark.read.options(**options).parquet(place)
            frame.schema  # noqa: B018 - Spark Connect looks only when asked
            return frame
        except Exception as error:  # of Spark, of py4j or of a Connect server
            problem = problem or first_line(error)
            if "PATH_NOT_FOUND" in str(error):
                raise UsageError(f"--input {path}: there is no such file or folder") from None
    raise UsageError(f"--input {path}: cannot be read as Parquet: {problem}")


def _path_column(captions: DataFrame, given: str | None, place: str) -> str:
    if given:
        return find_column(captions, given, "--path-column", place)
    usual = [name for name in image_folders.PATH_COLUMNS if name in captions.columns]
    return usual[0] if usual else find_column(captions, "file_name", "--path-column", place)


def _uid_column(frame: DataFrame, given: str | None, place: str) -> str | None:
    if given:
        return find_column(frame, given, "--uid-column", place)
    return "uid" if "uid" in frame.columns else None


def _some(frame: DataFrame, column: str) -> list[str]:
    return [row[0] for row in frame.select(column).limit(3).collect()]
