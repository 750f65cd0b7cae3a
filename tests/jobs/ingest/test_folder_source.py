"""Folders of images and their captions: what belongs together, and what is left out and why."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession

from jobs.core.errors import UsageError
from jobs.ingest import folder_source
from jobs.ingest import job as ingest
from jobs.ingest.folder_source import (
    LINKS,
    NO_CAPTION,
    NO_IMAGE,
    OTHER_FILES,
    SEVERAL_IMAGES,
    folder,
)
from jobs.ingest.settings import IngestConfig
from jobs.ingest.source_columns import Columns, Source
from jobs.tables import delta
from udfs.inputs.image_roots import ImageRoots

pytestmark = pytest.mark.spark


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def run(spark: SparkSession, folder: Path, **settings: Any) -> tuple[dict[str, Any], DataFrame]:
    """Ingest into `folder`/pairs; return the summary and the table."""
    config = IngestConfig(output=str(folder / "pairs"), **settings)
    return ingest.run(spark, config), delta.read(spark, config.output)


def rows(frame: DataFrame) -> list[dict[str, Any]]:
    return [row.asDict() for row in frame.collect()]


def write(root: Path, *names: str) -> None:
    """Files that hold their own names."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


def pairs(source: Source) -> dict[str, bytes]:
    """The image of each caption."""
    return {row["caption"]: bytes(row["image"]) for row in source.frame.collect()}


@pytest.mark.parametrize("scheme", ["", "file:"])
def test_a_folder_and_its_captions_by_path(
    spark: SparkSession, tmp_path: Path, scheme: str
) -> None:
    images = tmp_path / "my images"
    (images / "sub=1").mkdir(parents=True)
    for name in ("a 1.jpg", "sub=1/a 1.jpg", "ü%20.PNG", "_DSC1.jpg", "lonely.webp", "x.txt"):
        (images / name).write_bytes(name.encode())
    captions = tmp_path / "captions.csv"
    captions.write_text(
        "image,caption,licence\n"
        './a 1.jpg,"two\nlines, ""quoted""",CC0\n'
        "sub=1\\a 1.jpg,b\\c,\n"
        "ü%20.PNG,first,\n"
        "ü%20.PNG,second,\n"
        "_DSC1.jpg,hidden,\n"
        "missing.jpg,no file,\n",
        encoding="utf-8-sig",
    )
    summary, table = run(
        spark, tmp_path, source="folder", input=scheme + str(images), captions=str(captions)
    )
    hidden = 0 if scheme else 1  # Spark's own listing leaves out what begins with `_`
    assert summary["rows"] == 4 + hidden
    assert summary["images"] == 4 + hidden
    assert (summary["unmatched_images"], summary["unmatched_captions"]) == (1, 2 - hidden)
    assert summary["unmatched_images_such_as"] == [f"{scheme}{images}/lonely.webp"]
    found = {row["caption"]: row for row in rows(table)}
    assert bytes(found['two\nlines, "quoted"']["image"]) == b"a 1.jpg"
    assert found['two\nlines, "quoted"']["licence"] == "CC0"
    assert bytes(found["b\\c"]["image"]) == b"sub=1/a 1.jpg"
    assert found["second"]["image_sha"] == sha("ü%20.PNG".encode())
    assert found["second"]["file_name"] == "ü%20.PNG"
    assert found["second"]["source_path"] == f"{scheme}{images}/ü%20.PNG"
    assert ("hidden" in found) is bool(hidden)


def test_captions_may_give_names_or_stems_but_not_ambiguous_ones(
    spark: SparkSession, tmp_path: Path
) -> None:
    for name in ("one/1.jpg", "two/2.JPEG", "one/3.png", "two/3.png"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_bytes(name.encode())
    captions = tmp_path / "captions.jsonl"
    lines: list[dict[str, Any]] = [{"id": n, "text": f"number {n} \ud800"} for n in (1, 2, 3)]
    captions.write_text("\n".join(map(json.dumps, lines)))
    summary, table = run(
        spark,
        tmp_path,
        source="folder",
        input=str(tmp_path / "images"),
        captions=str(captions),
        path_column="id",
        caption_column="text",
    )
    assert (summary["rows"], summary["unmatched_captions"]) == (2, 1)
    assert {row["caption"] for row in rows(table)} == {"number 1 ?", "number 2 ?"}
    shutil.rmtree(tmp_path / "pairs")
    captions.write_text('{"file": "nowhere.jpg", "caption": "x"}')
    with pytest.raises(UsageError, match="no caption of .* names an image"):
        run(
            spark,
            tmp_path,
            source="folder",
            input=str(tmp_path / "images"),
            captions=str(captions),
        )


def test_texts_beside_images(spark: SparkSession, tmp_path: Path) -> None:
    images = tmp_path / "images [1]"
    write(images, "a.jpg", "sub/b.PNG", "c.jpg", "c.png", "lone.jpg", "notes.json", "._a.txt")
    write(images, "a.txt", "sub/b.PNG.TXT", "c.txt", "README.txt")
    source = folder(spark, str(images), folder_source.SIDECAR, Columns())
    assert pairs(source) == {"a.txt": b"a.jpg", "sub/b.PNG.TXT": b"sub/b.PNG"}
    counts = {reason: count for reason, (count, _) in source.left_out.items()}
    assert counts == {NO_IMAGE: 2, SEVERAL_IMAGES: 1, NO_CAPTION: 3, OTHER_FILES: 1}
    assert source.left_out[SEVERAL_IMAGES][1] == "c.txt: c.jpg, c.png"
    assert source.rejects is not None
    assert source.rejects.count() == sum(counts.values())


def test_files_that_captions_name_are_images_whatever_their_ending(
    spark: SparkSession, tmp_path: Path
) -> None:
    write(tmp_path / "images", "100_550", "x.dat", "y.JFIF", "z.heic", "other.dat")
    captions = tmp_path / "images" / "captions.csv"
    lines = ["file,caption", "100_550,bare", "x.dat,odd", "y.JFIF,jfif", "z.heic,heic"]
    captions.write_text("\n".join(lines))
    source = folder(spark, str(tmp_path / "images"), str(captions), Columns())
    expected = {"bare": b"100_550", "odd": b"x.dat", "jfif": b"y.JFIF", "heic": b"z.heic"}
    assert pairs(source) == expected
    place = str(tmp_path / "images" / "other.dat")
    assert source.left_out == {OTHER_FILES: (1, place)}
    assert source.notes["images"] == 4


def test_names_of_several_images_are_said_to_be_ambiguous(
    spark: SparkSession, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    write(images, "0/0.jpg", "1/0.jpg", "1/1.jpg")
    captions = tmp_path / "captions.csv"
    captions.write_text("file,caption\n0.jpg,which\n")
    with pytest.raises(UsageError, match="names are ambiguous: 0/0.jpg, 1/0.jpg"):
        folder(spark, str(images), str(captions), Columns())
    captions.write_text("file,caption\n0.jpg,which\n1.jpg,this\n2.jpg,none\n")
    source = folder(spark, str(images), str(captions), Columns())
    assert pairs(source) == {"this": b"1/1.jpg"}
    assert source.left_out[SEVERAL_IMAGES] == (1, "0.jpg: 0/0.jpg, 1/0.jpg")
    assert source.left_out[NO_IMAGE] == (1, "2.jpg")
    assert source.left_out[NO_CAPTION][0] == 2
    captions.write_text(f"file,caption\n{images}/0/0.jpg,by its whole path\n")
    source = folder(spark, str(images), str(captions), Columns())
    assert pairs(source) == {"by its whole path": b"0/0.jpg"}


def test_linked_folders_and_names_like_patterns(spark: SparkSession, tmp_path: Path) -> None:
    images, store = tmp_path / "a{b},[c]*?", tmp_path / "store"
    write(store, "x1.jpg")
    write(images, "x0.jpg")
    os.symlink(store, images / "linked")
    os.symlink(images, store / "back")
    captions = images / "cap[t]ions.tsv"
    captions.write_text("file\tcaption\nx0.jpg\tzero\nlinked/x1.jpg\tone\n")
    source = folder(spark, str(images), str(captions), Columns())
    assert pairs(source) == {"zero": b"x0.jpg", "one": b"x1.jpg"}
    assert source.left_out == {}

    # A link to a file may lead into the folders that are read, or to a root.
    write(tmp_path / "blobs", "x2.jpg")
    os.symlink(tmp_path / "blobs" / "x2.jpg", images / "x2.jpg")
    os.symlink(store / "x1.jpg", images / "x3.jpg")
    os.symlink(tmp_path / "nowhere", images / "x4.jpg")
    captions.write_text("file\tcaption\nx2.jpg\ttwo\nx3.jpg\tthree\n")
    source = folder(spark, str(images), str(captions), Columns())
    assert pairs(source) == {"three": b"x1.jpg"}
    assert source.left_out[LINKS] == (2, f"{images}/x2.jpg")
    assert source.left_out[NO_IMAGE] == (1, "x2.jpg")
    blobs = ImageRoots.of([str(tmp_path / "blobs")])
    source = folder(spark, str(images), str(captions), Columns(), roots=blobs)
    assert pairs(source) == {"two": b"x2.jpg", "three": b"x1.jpg"}
    assert source.left_out[LINKS] == (1, f"{images}/x4.jpg")
