"""Shards and score files without Spark; each is read back by the library that it is made for."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pyarrow as pa
import pytest
import webdataset
from pictures import encoded, picture

from udfs.inputs import tars
from udfs.outputs.image_encoding import image_extension
from udfs.outputs.parquet_shards import finished_parquet, write_parquet
from udfs.outputs.shards import SHARD_SCHEMA, Layout, Write, write_shards
from udfs.outputs.tar_shards import finished_tar, write_tar
from udfs.outputs.upstream_score_files import (
    TASKS,
    is_score_file,
    relative_stems,
    write_score_files,
)

SCHEMA = pa.schema(
    [
        ("_shard", pa.int64()),
        ("_index", pa.int64()),
        ("_image", pa.binary()),
        ("_caption", pa.binary()),
        ("uid", pa.string()),
        ("itm", pa.float32()),
        ("repetition", pa.int32()),
        ("duplicate", pa.bool_()),
        ("metadata", pa.string()),
    ]
)
IMAGES = [encoded(picture(seed=n), kind) for n, kind in enumerate(("JPEG", "PNG", "WEBP", "GIF"))]


def row(shard: int, index: int, image: bytes | None, **other: Any) -> dict[str, Any]:
    fields = {"uid": f"u/{index}.x", "itm": 66.1, "repetition": 0, "duplicate": None}
    sample = {"_shard": shard, "_index": index, "_image": image, "_caption": f"{index} ü".encode()}
    return sample | fields | {"metadata": None} | other


ROWS = [
    row(0, 0, IMAGES[0], metadata='{"url": "https://x", "key": "old", "itm": 1, "caption": "old"}'),
    row(0, 1, IMAGES[1], itm=float("nan"), _caption=b"broken \xff utf-8"),
    row(0, 1, IMAGES[2], uid="copy in the pairs table"),
    row(0, 2, None, uid="missing"),
    row(1, 0, IMAGES[2], metadata="[no object", duplicate=True),
    row(1, 1, IMAGES[3], _caption=None, itm=None),
    row(1, 2, b"no picture", metadata='{"deep": [1, {"a": null}], "inf": Infinity}'),
]


def batches(rows: int) -> Iterator[pa.RecordBatch]:
    yield from pa.Table.from_pylist(ROWS, SCHEMA).to_batches(max_chunksize=rows)


def write(folder: Path, writer: Write, rows: int = 3) -> tuple[Layout, list[dict[str, Any]]]:
    folder.mkdir(exist_ok=True)
    layout = Layout(str(folder), shards=2, shard_rows=3, plan="p1")
    shards = [r for batch in write_shards(batches(rows), layout, writer) for r in batch.to_pylist()]
    return layout, shards


def test_webdataset_and_ingest_can_read_the_tars(tmp_path: Path) -> None:
    layout, shards = write(tmp_path / "a", write_tar)
    assert [(s["file"], s["rows"], s["left_out"]) for s in shards] == [
        ("00000000.tar", 2, 1),
        ("00000001.tar", 3, 0),
    ]
    assert shards[0]["left_out_such_as"] == ["missing: there is no image"]

    paths = [f"{layout.folder}/{shard['file']}" for shard in shards]
    samples = list(webdataset.WebDataset(paths, shardshuffle=False))
    assert [s["__key__"] for s in samples] == [
        *("000000000000", "000000000001", "000000010000", "000000010001", "000000010002"),
    ]
    kinds = ("jpg", "png", "webp", "gif", "bin")
    images = [*IMAGES, b"no picture"]
    assert [s[kind] for s, kind in zip(samples, kinds, strict=True)] == images
    assert [s["txt"] for s in samples] == [
        "0 ü".encode(),
        b"broken \xff utf-8",
        "0 ü".encode(),
        b"",
        "2 ü".encode(),
    ]
    fields = [json.loads(s["json"], parse_constant=pytest.fail) for s in samples]
    first = {"url": "https://x", "key": "000000000000", "uid": "u/0.x", "caption": "0 ü"}
    assert fields[0].items() >= first.items()
    assert fields[0]["itm"] == pytest.approx(66.1)
    assert fields[1]["itm"] is None
    assert (fields[2]["duplicate"], fields[4]["deep"], fields[4]["inf"]) == (
        True,
        [1, {"a": None}],
        None,
    )

    read = [r for path in paths for r in tars.read_tar(path)]
    assert [(r["uid"], r["image"]) for r in read[:4]] == [
        (sample["uid"], image) for sample, image in zip(fields[:4], IMAGES, strict=True)
    ]
    assert [r["read_error"] for r in read[:4]] == [None] * 4

    stats = json.loads((tmp_path / "a/00000000_stats.json").read_text())
    assert (stats["count"], stats["successes"], stats["failed_to_download"]) == (3, 2, 1)
    table = pd.read_parquet(tmp_path / "a/00000000.parquet")
    assert table["key"].tolist() == ["000000000000", "000000000001"]
    assert table["caption"].tolist() == ["0 ü", "broken \ufffd utf-8"]


@pytest.mark.parametrize(
    ("writer", "finished"), [(write_tar, finished_tar), (write_parquet, finished_parquet)]
)
def test_shards_are_reproducible_and_recognised_when_finished(
    tmp_path: Path, writer: Write, finished: Any
) -> None:
    layout, shards = write(tmp_path / "a", writer, rows=1)
    other, other_shards = write(tmp_path / "b", writer, rows=7)
    files = {p.relative_to(layout.folder): p for p in Path(layout.folder).rglob("*") if p.is_file()}
    assert len(files) >= 4
    assert not any(name.name.endswith(".part") for name in files)
    assert {n: (Path(other.folder) / n).read_bytes() for n in files} == {
        n: p.read_bytes() for n, p in files.items()
    }
    assert shards == other_shards
    found = [vars(finished(layout, n)) for n in range(2)]
    assert pa.RecordBatch.from_pylist(found, SHARD_SCHEMA).to_pylist() == shards
    assert finished(Layout(layout.folder, 2, 3, "p2"), 0) is None
    main = Path(layout.folder, shards[0]["file"])
    main.write_bytes(main.read_bytes()[:-1])
    assert finished(layout, 0) is None
    assert finished(layout, 1)


def test_an_interrupted_write_leaves_only_finished_shards(tmp_path: Path) -> None:
    def broken() -> Iterator[pa.RecordBatch]:
        yield from batches(1)
        raise OSError("the input is gone")

    layout = Layout(str(tmp_path), 2, 3, "p1")
    with pytest.raises(OSError, match="gone"):
        list(write_shards(broken(), layout, write_tar))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        *("00000000.parquet", "00000000.tar", "00000000_stats.json"),
    ]


def test_the_parquet_folder_loads_with_images(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    write(folder, write_parquet)
    files = str(folder / "data/train-*.parquet")
    loaded = datasets.load_dataset("parquet", data_files={"train": files}, cache_dir=str(tmp_path))
    train = loaded["train"]
    assert isinstance(train.features["image"], datasets.Image)
    assert (train.features["itm"].dtype, train.features["duplicate"].dtype) == ("float32", "bool")
    assert train[0]["image"].size == (40, 30)
    raw = train.cast_column("image", datasets.Image(decode=False))
    assert [r["bytes"] for r in raw["image"]] == [*IMAGES, b"no picture"]
    assert [r["path"] for r in raw["image"]][:2] == ["00000000.jpg", "00000001.png"]
    assert train["caption"][1] == "broken \ufffd utf-8"
    assert train["uid"][0] == "u/0.x"


def test_score_files_have_upstreams_format(tmp_path: Path) -> None:
    rows = pa.Table.from_pylist(
        [
            {
                "uid": "b",
                "key": "2",
                "url": "u",
                "caption": "c",
                "member": "2.jpg",
                "metadata": None,
            }
            | {"itm": 7, "odf": 0, "ctq": 100, "su": 50},
            {"uid": "a", "key": "1", "url": None, "caption": "c", "member": "1.jpg"}
            | {"metadata": '{"uid": "a", "width": 3, "mixed": "text", "caption": "own"}'}
            | {"itm": None, "odf": None, "ctq": None, "su": None},
            {"uid": "c", "key": "3", "url": "u", "caption": "c", "member": "3.jpg"}
            | {"metadata": '{"width": 4, "mixed": [1]}', "itm": 1, "odf": 1, "ctq": 1, "su": 1},
        ]
    )
    files = write_score_files(rows, str(tmp_path), "part/00000000")
    names = [f"00000000_{task}.parquet" for task in TASKS.values()]
    assert [Path(file).name for file in files] == names
    frame = pd.read_parquet(files[0])
    assert frame["uid"].tolist() == ["a", "b", "c"]
    assert frame["image_text_matching_score"].tolist() == [None, "7", "1"]
    assert frame["caption"].tolist() == ["own", "c", "c"]
    assert frame["width"].fillna(0).tolist() == [3, 0, 4]
    assert frame["mixed"].tolist() == ['"text"', None, "[1]"]
    assert pd.read_parquet(files[2])["caption_text_quality_score"].tolist() == [None, "100", "1"]
    assert is_score_file(Path(files[3]))
    frame.to_parquet(tmp_path / "theirs.parquet")
    assert not is_score_file(tmp_path / "theirs.parquet")


def test_score_files_of_tars_with_one_name_are_in_different_folders() -> None:
    assert relative_stems(["/d/0.tar"]) == {"/d/0.tar": "0"}
    paths = ["/d/a/0.tar", "/d/a/1.tar", "/d/b/0.TAR"]
    assert list(relative_stems(paths).values()) == ["a/0", "a/1", "b/0"]


def test_the_extension_is_that_of_the_images_format() -> None:
    assert [image_extension(encoded(picture(), kind)) for kind in ("TIFF", "BMP", "AVIF")] == [
        *("tif", "bmp", "avif"),
    ]
    assert image_extension(b"") == image_extension(b"<svg/>") == "bin"
