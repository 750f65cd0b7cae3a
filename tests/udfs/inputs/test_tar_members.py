"""Tars as they are packed: compressed, appended to each other, padded; without Spark."""

import tarfile
from pathlib import Path

import pyarrow as pa
import pytest
from tiny_tars import img2dataset, write_tar

from udfs.inputs import tars


def captions(path: Path) -> list[bytes]:
    rows = list(tars.read_tar(str(path)))
    assert [row["read_error"] for row in rows if row["read_error"]] == []
    return [row["caption"][0] for row in rows if row["caption"]]


@pytest.mark.parametrize("packing", ["gz", "bz2", "xz", "zst"])
def test_a_compressed_tar_is_told_by_its_bytes(tmp_path: Path, packing: str) -> None:
    path = tmp_path / "x.tar"
    images = [(f"{n}.jpg", b"0" * 20_000) for n in range(9)]
    texts = [(f"{n}.txt", b"text %d" % n) for n in range(9)]
    if packing == "zst":
        write_tar(tmp_path / "plain.tar", images + texts)
        with pa.CompressedOutputStream(str(path), "zstd") as out:
            out.write((tmp_path / "plain.tar").read_bytes())
    else:
        write_tar(path, images + texts, packing)
    assert captions(path) == [b"text %d" % n for n in range(9)]
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    rows = list(tars.read_tar(str(path)))
    assert rows[-1]["read_error"].startswith("the tar is broken: ")


@pytest.mark.parametrize("packing", ["", "gz", "bz2", "xz"])
def test_tars_behind_each_other_are_read_to_the_last(tmp_path: Path, packing: str) -> None:
    parts = [
        write_tar(tmp_path / f"{n}.tar", {f"{n}.png": b"0", f"{n}.txt": b"%d" % n}, packing)
        for n in range(3)
    ]
    path = tmp_path / "x.tar"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert captions(path) == [b"0", b"1", b"2"]


def test_zeros_behind_the_end_may_be_cut_off_anywhere(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", img2dataset(1))
    whole = path.read_bytes()
    assert len(whole) == 10_240
    for length in (7680 + 512, 7680 + 1024, 7680 + 1100, 10_240):
        path.write_bytes(whole[:length])
        assert captions(path) == [b"caption 0"]


@pytest.mark.parametrize("data", [b"", bytes(10_240)])
def test_a_tar_without_a_sample_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(data)
    (row,) = tars.read_tar(str(tmp_path / "x.tar"))
    assert row["_left_out"] == {
        "reason": "tars without a sample",
        "example": str(tmp_path / "x.tar"),
    }


def test_a_member_of_less_than_no_bytes_is_damage(tmp_path: Path) -> None:
    member = tarfile.TarInfo("0.jpg")
    member.size = -1024
    header = member.tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "x.tar").write_bytes(header + bytes(10_240))
    (row,) = tars.read_tar(str(tmp_path / "x.tar"))
    assert row["read_error"] == "the tar is broken: invalid header"


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_and_foreign_names_are_whole(tmp_path: Path, form: int) -> None:
    key = "ünï/😀 " + "x" * 300
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=form) as tar:
        for ending in ("jpg", "txt"):
            (tmp_path / "body").write_text(ending)
            tar.add(tmp_path / "body", f"{key}.{ending}")
    (row,) = tars.read_tar(str(path))
    assert (row["key"], row["image"], row["caption"]) == (key, b"jpg", [b"txt"])
    assert row["source_path"] == f"{path}#{key}.jpg"
