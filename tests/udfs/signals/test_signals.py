"""Signals of a pair, without Spark: real libraries on real bytes, and on arbitrary input."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from damaged_images import DAMAGED
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import encoded, photo
from PIL import Image, ImageDraw, ImageFont

from udfs.inputs.image_roots import ImageRoots
from udfs.signals import image_size, language, perceptual, shingles, text_in_image
from udfs.signals.rows import (
    PAIR_SIGNALS,
    SCHEMA,
    SIGNAL_ERROR,
    SignalOptions,
    measure,
    measure_batches,
)

NO_DEADLINE = settings(deadline=None)  # the machine may be busy
ALL = SignalOptions(frozenset(PAIR_SIGNALS) - {"text_in_image"})


def signals(image: bytes | None, caption: Any, options: SignalOptions = ALL) -> dict[str, Any]:
    return measure(lambda: image, caption, options)


# --- size -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_the_size_is_read_from_the_header(kind: str) -> None:
    assert image_size.size(encoded(photo(1, 70, 30), kind)) == (70, 30)


def test_a_cut_file_has_a_size_but_no_hash() -> None:
    whole = encoded(photo(1, 400, 300), "JPEG")
    found = signals(whole[: len(whole) // 2], "a caption")
    assert (found["width"], found["height"]) == (400, 300)
    assert "phash" not in found
    assert found["signal_status"] == "bad_image"
    assert "truncated" in found["signal_reason"]


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_image_gives_a_status_and_the_caption_is_still_measured(name: str) -> None:
    found = signals(DAMAGED[name][0], "two words")
    assert found["signal_status"] == "bad_image"
    assert found["signal_reason"]
    assert "\n" not in found["signal_reason"]
    assert (found["caption_words"], found["caption_characters"]) == (2, 9)


def test_no_pixel_is_decoded_for_the_size_alone() -> None:
    whole = encoded(photo(1), "JPEG")
    found = signals(whole[: len(whole) // 2], None, SignalOptions(frozenset({"size"})))
    assert found == {"width": 240, "height": 180, "signal_status": "ok", "signal_reason": None}


# --- captions -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caption", "words", "characters", "status"),
    [
        ("A cat on a mat", 5, 14, "ok"),
        ("  two\n\twords ", 2, 13, "ok"),  # as len(text.split()) and len(text)
        ("日本語", 1, 3, "ok"),
        ("\U0001f408 cat", 2, 5, "ok"),
        (b"caf\xe9 noir", 2, 9, "ok"),
        (b"\xed\xa0\x80", 1, 3, "ok"),  # a lone surrogate's bytes
        ("lone \ud800", 2, 6, "ok"),
        ("", 0, 0, "empty_caption"),
        (" \n", 0, 2, "empty_caption"),
        (None, None, None, "empty_caption"),
    ],
)
def test_words_and_characters_are_counted_as_in_datacomp(
    caption: Any, words: int | None, characters: int | None, status: str
) -> None:
    found = signals(encoded(photo(1)), caption)
    assert found.get("caption_words") == words
    assert found.get("caption_characters") == characters
    assert found["signal_status"] == status


def test_languages_of_short_captions() -> None:
    captions = {
        "A brown dog in the park": "en",
        "Woman drinking coffee at a wooden table": "en",
        "Ein brauner Hund im Park": "de",
        "Un chien brun dans le parc": "fr",
        "Un perro marrón en el parque": "es",
        "Коричневая собака в парке": "ru",
        "公園の茶色い犬": "ja",
        "كلب بني في الحديقة": "ar",
    }
    for caption, code in captions.items():
        found, probability = language.language(caption)
        assert found == code, caption
        assert probability is not None
        assert 0 < probability <= 1
    assert language.language("12345 - 678, 9!") == (None, None)


def test_a_caption_of_a_million_characters_is_bounded() -> None:
    found = signals(encoded(photo(1)), "word " * 200_000)
    assert found["caption_words"] == 200_000
    assert len(found["shingles"]) <= shingles.CHARACTERS
    huge = signals(None, "\ufdfa" * 1_000_000)  # each character is folded into 18
    assert huge["caption_node"]


@settings(NO_DEADLINE, max_examples=60)
@given(image=st.none() | st.binary(max_size=200), caption=st.none() | st.binary(max_size=60))
def test_nothing_raises_and_everything_fits_the_schema(
    image: bytes | None, caption: bytes | None
) -> None:
    found = signals(image, caption)
    assert set(found) <= set(SCHEMA.names)
    for field in SCHEMA:
        pa.array([found.get(field.name)], field.type)
    assert found["signal_status"] in ("bad_image", "empty_caption")
    assert found["signal_reason"]


@pytest.mark.parametrize("colour", ["white", "black", (3, 200, 90)])
def test_flat_pictures_share_one_hash(colour: Any) -> None:
    data = encoded(Image.new("RGB", (99, 55), colour), "JPEG", quality=70)
    assert signals(data, "x")["phash"] == perceptual.FLAT


# --- text in the image ----------------------------------------------------------------------------


def sign(text: str) -> bytes:
    image = Image.new("RGB", (400, 200), "white")
    font = ImageFont.load_default(28)
    ImageDraw.Draw(image).text((20, 60), text, fill="black", font=font)
    return encoded(image)


def test_text_in_the_image_and_its_overlap_with_the_caption() -> None:
    options = SignalOptions(frozenset({"text_in_image"}))
    found = signals(sign("SUMMER SALE\nat the harbour"), "Summer sale, a red poster", options)
    assert found["text_in_image"].lower().split() == ["summer", "sale", "at", "the", "harbour"]
    assert found["text_in_image_overlap"] == pytest.approx(2 / 5)
    empty = signals(sign(""), "!?", options)
    assert (empty["text_in_image"], empty["text_in_image_overlap"]) == ("", None)


def test_overlap_counts_distinct_words() -> None:
    assert text_in_image.overlap("BIG big Cat", "big, big dog") == 0.5
    assert text_in_image.overlap("", "a dog") == 0
    assert text_in_image.overlap("a dog", "...") is None


def test_a_failing_library_gives_a_status(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any) -> str:
        raise RuntimeError("no such\nthing")

    monkeypatch.setattr(perceptual, "phash", fail)
    monkeypatch.setattr(language, "language", fail)
    found = signals(encoded(photo(1)), "a caption")
    assert found["signal_status"] == SIGNAL_ERROR
    assert "caption: RuntimeError: no such; image: RuntimeError" in found["signal_reason"]
    assert (found["width"], found["caption_words"]) == (240, 2)


# --- batches --------------------------------------------------------------------------------------


def batch_of(rows: list[tuple[Any, ...]], names: list[str], kinds: list[pa.DataType]) -> Any:
    arrays = [pa.array(c, k) for c, k in zip(zip(*rows, strict=True), kinds, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, names)


def test_batches_keep_keys_and_order(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(photo(3, 50, 40)))
    names = ["uid", "image_path", "caption"]
    broken_uid = b"\xff\xfe uid"
    rows = [
        (broken_uid, str(tmp_path / "a.png").encode(), b"a dog"),
        (None, str(tmp_path / "none.png").encode(), b"\xff"),
        (b"c", None, None),
    ]
    options = replace(ALL, roots=ImageRoots.of([str(tmp_path)]))
    batch = batch_of(rows, names, [pa.binary()] * 3)
    batches: Iterator[Any] = iter([batch, batch.slice(0, 0)])
    measured, empty = measure_batches(batches, ["uid"], options)
    assert empty.num_rows == 0
    assert measured.schema.names == empty.schema.names == ["uid", *SCHEMA.names]
    assert measured.column("uid").to_pylist() == [broken_uid, None, b"c"]
    assert measured.column("width").to_pylist() == [50, None, None]
    assert measured.column("signal_status").to_pylist() == ["ok", "bad_image", "bad_image"]
    assert "none.png" in measured.column("signal_reason")[1].as_py()
    assert measured.column("signal_reason")[2].as_py() == "no image (null); null caption"
