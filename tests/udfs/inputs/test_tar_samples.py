"""What a tar's members become by their names, bytes and JSON; without Spark."""

import io
import json
import tarfile
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tiny_tars import read_pairs, write_tar

from udfs.inputs import tar_samples, tars

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff\xe0"


def fields(rows: list[dict[str, Any]], *names: str) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in names) for row in rows]


def test_names_and_texts_of_other_writers(tmp_path: Path) -> None:
    members = {
        "a/1.JPEG": b"1",
        "a/1.json": b'{"caption": "from json \\ud83d", "uid": 7}',
        "a/._2.png": b"macOS metadata",
        "a/2.seg.png": b"a mask",
        "a/2.webp": b"2",
        "a/2.txt": b"\xff\x00 bytes as they are",
        "b/1.txt": b"no image",
        "README": b"not a sample",
        "b/2.gif": b"3",
        "b/2.json": b"[" * 100_000,
    }
    rows, left_out = read_pairs(tmp_path, members)
    assert fields(rows, "key", "image", "caption") == [
        ("a/1", b"1", [b"from json ?"]),
        ("a/2", b"2", [b"\xff\x00 bytes as they are"]),
        ("b/1", None, [b"no image"]),
        ("b/2", b"3", None),
    ]
    assert rows[0]["uid"] == "7"
    assert [row["read_error"] for row in rows] == [None, None, None, "b/2.json is not JSON"]
    assert left_out == [
        (tar_samples.HIDDEN, "a/._2.png"),
        (tar_samples.FURTHER["image"], "a/2.seg.png"),
        (tar_samples.NO_ENDING, "README"),
    ]


def test_a_key_ends_at_the_first_dot_or_the_last(tmp_path: Path) -> None:
    members: dict[str, bytes] = {}
    for n in range(5):
        members |= {f"v1.5_{n}.jpg": b"%d" % n, f"v1.5_{n}.txt": b"text %d" % n}
    rows, left_out = read_pairs(tmp_path, members)
    assert fields(rows, "key", "image", "caption") == [("v1", b"0", [b"text 0"])]
    assert Counter(reason for reason, _ in left_out) == {
        tar_samples.FURTHER["image"]: 4,
        tar_samples.FURTHER["caption"]: 4,
    }
    assert {name for _, name in left_out} == set(members) - {"v1.5_0.jpg", "v1.5_0.txt"}
    rows, left_out = read_pairs(tmp_path, members, last_dot=True)
    assert fields(rows, "key", "image", "caption") == [
        (f"v1.5_{n}", b"%d" % n, [b"text %d" % n]) for n in range(5)
    ]
    assert left_out == []


def test_endings_by_option_choose_among_images_and_texts(tmp_path: Path) -> None:
    members = {
        "0.left.png": b"left",
        "0.right.png": b"right",
        "0.alt.txt": b"alt",
        "0.blip.txt": b"blip",
    }
    rows, left_out = read_pairs(tmp_path, members)
    assert fields(rows, "image", "caption") == [(b"left", [b"alt"])]
    assert left_out == [
        (tar_samples.FURTHER["image"], "0.right.png"),
        (tar_samples.FURTHER["caption"], "0.blip.txt"),
    ]
    chosen = {"image_endings": ("right.png",), "caption_endings": ("blip.txt",)}
    rows, left_out = read_pairs(tmp_path, members, **chosen)
    assert fields(rows, "image", "caption") == [(b"right", [b"blip"])]
    assert left_out == [
        ("members ending in .png", "0.left.png"),
        ("members ending in .txt", "0.alt.txt"),
    ]
    rows, _ = read_pairs(
        tmp_path, {"1.IMG": b"i", "1.cap": b"c"}, image_endings=("img",), caption_endings=("cap",)
    )
    assert fields(rows, "image", "caption") == [(b"i", [b"c"])]


def test_an_image_is_told_by_its_bytes_where_its_ending_is_not_known(tmp_path: Path) -> None:
    heic = b"\0\0\0\x18ftypheic" + b"\0" * 100
    members = {
        "0.img": JPEG + b"0" * 40_000,
        "1.heic": heic,
        "2": PNG,
        "2.txt": b"two",
        "3.depth": PNG,
        "3.jpg": b"3",
        "4.npy": b"\x93NUMPY",
        "4.foo": b"",
        "4.txt": b"an embedding",
    }
    rows, left_out = read_pairs(tmp_path, members)
    assert fields(rows, "key", "image", "caption") == [
        ("0", JPEG + b"0" * 40_000, None),
        ("1", heic, None),
        ("2", PNG, [b"two"]),
        ("3", b"3", None),
        ("4", None, [b"an embedding"]),
    ]
    assert left_out == [
        (tar_samples.FURTHER["image"], "3.depth"),
        ("members ending in .npy", "4.npy"),
        ("members with another ending (see --image-ending and --caption-ending)", "4.foo"),
    ]
    rows, left_out = read_pairs(tmp_path, members, image_endings=("jpg",))
    assert fields(rows, "key", "image") == [("2", None), ("3", b"3"), ("4", None)]
    assert len(left_out) == len(members) - 3


@pytest.mark.parametrize(
    ("content", "caption", "uid"),
    [
        ('{"caption": "NaN", "similarity": NaN, "uid": 12}', [b"NaN"], "12"),
        ('{"caption": ["one", "two"], "UID": "Aa"}', [b"one", b"two"], "Aa"),
        (
            '{"TEXT": "upper", "uid": 12345678901234567890123}',
            [b"upper"],
            "12345678901234567890123",
        ),
        ('{"captions": ["c", null, 5]}', [b"c", None, b"5"], None),
        ('{"caption": null, "text": "beside null", "uid": null}', [b"beside null"], None),
        ('{"caption": NaN, "text": " ", "captions": ["  ", "x"]}', [b"  ", b"x"], None),
        ('{"caption": 1.10, "uid": 1.10}', [b"1.10"], "1.10"),
        ('["a bare list", "of texts"]', [b"a bare list", b"of texts"], None),
        ('\ufeff{"caption": "ü"}', ["ü".encode()], None),
        ("{}", None, None),
    ],
)
def test_captions_and_uids_of_json(
    tmp_path: Path, content: str, caption: list[bytes | None] | None, uid: str | None
) -> None:
    (row,), left_out = read_pairs(tmp_path, {"0.jpg": b"0", "0.json": content.encode()})
    assert (row["caption"], row["uid"], left_out) == (caption, uid, [])
    assert row["metadata"] == content.encode()


def test_what_is_no_text_in_json_is_counted(tmp_path: Path) -> None:
    values = {"caption": [{"raw": "a"}, "b", True], "uid": ["x"]}
    (row,), left_out = read_pairs(tmp_path, {"0.jpg": b"0", "0.json": json.dumps(values).encode()})
    assert (row["caption"], row["uid"]) == ([b"b"], None)
    assert left_out == [
        *[(tar_samples.NO_TEXT, "0.json")] * 2,
        (tar_samples.NO_UID, "0.json"),
    ]


def test_the_fields_that_are_asked_for_win(tmp_path: Path) -> None:
    members = {
        "0.jpg": b"0",
        "0.txt": b"text",
        "0.json": b'{"blip": ["one", "two"], "caption": "c", "id": 5, "uid": 6}',
        "1.jpg": b"1",
        "1.txt": b"",
        "1.json": b'{"caption": "beside an empty text"}',
    }
    rows, left_out = read_pairs(tmp_path, members)
    assert fields(rows, "caption", "uid") == [([b"text"], "6"), ([b"beside an empty text"], None)]
    assert left_out == []
    rows, left_out = read_pairs(tmp_path, members, caption_field="Blip", uid_field="id")
    assert fields(rows, "caption", "uid") == [([b"one", b"two"], "5"), (None, None)]
    assert left_out == [(tar_samples.BESIDE, "0.txt"), (tar_samples.BESIDE, "1.txt")]


def test_members_that_stand_apart_join_the_image_of_their_key(tmp_path: Path) -> None:
    images = [(f"{n}.jpg", b"%d" % n) for n in range(3)]
    texts = [(f"{n}.txt", b"text %d" % n) for n in range(3)]
    more = [(f"{n}.json", b'{"uid": "u%d"}' % n) for n in range(3)]
    want = [(b"%d" % n, [b"text %d" % n], f"u{n}") for n in range(3)]
    for members in (images + texts + more, texts + images + more, more + texts[::-1] + images):
        rows, left_out = read_pairs(tmp_path, [*members, ("3.txt", b"no image")])
        assert fields(rows, "image", "caption", "uid") == [*want, (None, [b"no image"], None)]
        assert left_out == []
    # A pair that lacks nothing is given before its JSON comes, unless a uid is asked for.
    pairs = [member for pair in zip(images, texts, strict=True) for member in pair]
    rows, left_out = read_pairs(tmp_path, pairs + more)
    assert fields(rows, "image", "caption", "uid") == [(*row[:2], None) for row in want]
    assert left_out == [(tar_samples.APART, f"{n}.json") for n in range(3)]
    rows, left_out = read_pairs(tmp_path, pairs + more, uid_field="uid")
    assert fields(rows, "image", "caption", "uid") == want
    assert left_out == []


def test_texts_that_are_too_large_to_wait_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tars, "MAX_TEXT_BYTES", 8)
    members = [("0.jpg", b"0"), ("1.jpg", b"1"), ("0.txt", b"fits in"), ("1.txt", b"does not")]
    rows, left_out = read_pairs(tmp_path, members)
    assert fields(rows, "image", "caption") == [(b"0", [b"fits in"]), (b"1", None)]
    assert left_out == [(tar_samples.APART, "1.txt")]


def test_names_that_are_not_utf_8_stay_apart(tmp_path: Path) -> None:
    members: dict[str, bytes] = {}
    for letter in "éè":
        name = f"caf{letter}".encode("latin-1").decode("utf-8", "surrogateescape")
        members |= {f"{name}.jpg": letter.encode(), f"{name}.txt": letter.encode()}
    rows, left_out = read_pairs(tmp_path, members)
    assert fields(rows, "image", "caption") == [
        ("é".encode(), ["é".encode()]),
        ("è".encode(), ["è".encode()]),
    ]
    assert [row["key"].encode().decode() for row in rows] == [r"caf\udce9", r"caf\udce8"]
    assert left_out == []


def test_links_and_devices_are_counted_and_a_tar_without_a_sample_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        for name, kind in (("d", tarfile.DIRTYPE), ("l.jpg", tarfile.SYMTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "0.jpg"
            tar.addfile(member)
        member = tarfile.TarInfo("__MACOSX/._0.jpg")
        tar.addfile(member, io.BytesIO())
    assert [row["_left_out"] for row in tars.read_tar(str(path))] == [
        {"reason": tar_samples.NO_FILE, "example": f"{path}#l.jpg"},
        {"reason": tar_samples.HIDDEN, "example": f"{path}#__MACOSX/._0.jpg"},
        {"reason": tar_samples.NO_SAMPLE, "example": str(path)},
    ]


def test_memory_is_that_of_a_sample(tmp_path: Path) -> None:
    members = [(f"{n}.jpg", b"0" * 1_000_000) for n in range(30)]
    path = write_tar(tmp_path / "x.tar", members + [(f"{n}.txt", b"text") for n in range(30)])
    tracemalloc.start()
    assert all(row["caption"] == [b"text"] for row in tars.read_tar(str(path)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000
