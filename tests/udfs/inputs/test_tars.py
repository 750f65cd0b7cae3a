"""Tars that are complete, cut off, or overwritten in the middle; without Spark."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tiny_tars import img2dataset, write_tar

from udfs.inputs import image_files, image_roots, tars


def read(path: Path) -> list[dict[str, Any]]:
    return list(tars.read_tar(str(path)))


def test_samples_of_img2dataset(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "00000.tar", img2dataset(2))
    first, second = read(path)
    assert first["uid"] == "0" * 32
    assert second["image"] == b"\1" * 5000
    assert second["caption"] == [b"caption 1"]
    assert second["url"] == "http://a.example/1"
    assert second["source_path"] == f"{path}#00001.jpg"
    assert json.loads(second["metadata"])["width"] == 9
    assert second["read_error"] is None


def test_a_tar_that_is_cut_off_gives_the_samples_before(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "whole.tar", img2dataset(20)).read_bytes()
    for cut in range(0, 40_000, 512 + 7):
        path = tmp_path / "cut.tar"
        path.write_bytes(whole[:cut])
        rows = read(path)
        if cut == 0:
            assert [row["_left_out"]["reason"] for row in rows] == ["tars without a sample"]
            continue
        intact = [row for row in rows if not row["read_error"]]
        assert [row["caption"] for row in intact] == [
            [b"caption %d" % n] for n in range(len(intact))
        ]
        assert all(len(row["image"]) == 5000 for row in intact)
        assert len(intact) >= cut // 7680 - 1  # a sample is 15 blocks
        assert sum(bool(row["read_error"]) for row in rows) == 1
        assert rows[-1]["read_error"].startswith("the tar is broken: ")


def test_a_missing_end_is_noticed_between_members_too(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "whole.tar", img2dataset(2)).read_bytes()
    path = tmp_path / "cut.tar"
    path.write_bytes(whole[:7680])  # exactly the first sample
    whole_sample, rest = read(path)
    assert whole_sample["read_error"] is None
    assert (rest["key"], rest["source_path"]) == (None, str(path))
    assert "without an end mark" in rest["read_error"]


def test_damage_in_the_middle_is_not_taken_for_the_end(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", img2dataset(5))
    data = bytearray(path.read_bytes())
    data[2 * 7680 : 2 * 7680 + 300] = b"?" * 300  # the header of 00002.jpg
    path.write_bytes(data)
    rows = read(path)
    assert [row["key"] for row in rows] == ["00000", "00001", None]
    assert rows[-1]["read_error"] == "the tar is broken: invalid header"


@pytest.mark.parametrize(
    "data",
    [b"<html>not found</html>", b"\x1f\x8b broken gzip", b"BZh9 broken", b"\xfd7zXZ\0 broken"],
)
def test_a_file_that_is_not_a_tar_gives_one_row_with_the_reason(
    tmp_path: Path, data: bytes
) -> None:
    (tmp_path / "x.tar").write_bytes(data)
    (row,) = read(tmp_path / "x.tar")
    assert row["read_error"].startswith("the tar is broken")
    (row,) = read(tmp_path / "none.tar")
    assert "No such file" in row["read_error"]


def test_batches_are_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tars, "BATCH_BYTES", 12_000)
    tar_paths = [str(write_tar(tmp_path / f"{n}.tar", img2dataset(4))) for n in range(2)]
    paths = pa.RecordBatch.from_pydict({"path": tar_paths})
    batches = list(tars.read_tars(iter([paths])))
    assert [batch.num_rows for batch in batches] == [3, 3, 2]
    assert batches[0].schema == tars.SCHEMA


def test_images_are_read_in_bounded_batches_and_failures_have_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_files, "BATCH_BYTES", 150)
    monkeypatch.setattr(image_roots, "MAX_BYTES", 200)
    paths = [tmp_path / name for name in ("a.jpg", "b.jpg", "none.jpg", "huge.jpg", "c.jpg")]
    for path, size in zip(paths, (100, 100, None, 201, 0), strict=True):
        if size is not None:
            path.write_bytes(b"x" * size)
    broken = pa.array([b"\xff"] * 5, pa.binary()).cast(pa.string(), safe=False)
    texts = pa.StringArray.from_buffers(5, *broken.buffers()[1:])
    source = pa.RecordBatch.from_arrays([pa.array(map(str, paths)), texts], ["source_path", "c"])
    batches = list(image_files.with_images(iter([source])))
    assert [batch.num_rows for batch in batches] == [2, 3]
    rows = pa.Table.from_batches(batches).drop(["c"]).to_pylist()
    assert [len(row["image"] or b"") for row in rows] == [100, 100, 0, 0, 0]
    errors = [row["read_error"] for row in rows]
    assert errors[:2] == [None, None]
    assert errors[2] == "cannot read the file: No such file or directory"
    assert errors[3] == "cannot read the file: it has over 200 bytes"
    assert errors[4] is None
