"""Signals of a pair, without Spark: real libraries on real bytes, and whatever else may come."""

import io
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import encoded
from PIL import Image, ImageDraw, ImageFont
from test_images import DAMAGED

import jobs.signals
from jobs.core.errors import UsageError
from jobs.signals.job import SignalsConfig
from jobs.signals.near_duplicates import Node, claims_of
from udfs.signals import image_size, language, perceptual, shingles, text_in_image
from udfs.signals.rows import MEASURED, SCHEMA, SIGNAL_ERROR, Wanted, measure, measure_batches

UNHURRIED = settings(deadline=None)  # the machine may be busy
ALL = Wanted(frozenset(MEASURED) - {"text_in_image"})


def photo(seed: int, width: int = 240, height: int = 180) -> Image.Image:
    """A picture with as much going on as in a photograph."""
    rng = np.random.default_rng(seed)
    rough = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8))
    return rough.resize((width, height), Image.Resampling.BICUBIC)


def signals(image: bytes | None, caption: Any, wanted: Wanted = ALL) -> dict[str, Any]:
    return measure(lambda: image, caption, wanted)


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
def test_damage_is_a_status_and_the_caption_still_counts(name: str) -> None:
    found = signals(DAMAGED[name][0], "two words")
    assert found["signal_status"] == "bad_image"
    assert found["signal_reason"]
    assert "\n" not in found["signal_reason"]
    assert (found["caption_words"], found["caption_characters"]) == (2, 9)


def test_no_pixel_is_decoded_for_the_size_alone() -> None:
    whole = encoded(photo(1), "JPEG")
    found = signals(whole[: len(whole) // 2], None, Wanted(frozenset({"size"})))
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
def test_words_and_characters_are_datacomps(
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
    assert signals(None, "\ufdfa" * 1_000_000)["caption_node"]  # one character that folds into 18


@settings(UNHURRIED, max_examples=60)
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


@UNHURRIED
@given(st.text())
def test_shingles_fold_case_and_white_space(text: str) -> None:
    same = shingles.normalized(text)
    assert shingles.normalized(f" {same}\n") == same
    found = shingles.shingles(same)
    assert found == sorted(set(found))
    assert shingles.similarity(found, found) == (1 if same else 0)
    assert len(shingles.keys(found)) == (shingles.BANDS if same else 0)


def test_similar_captions_share_keys_and_others_do_not() -> None:
    """With the seed given, the keys are the same everywhere, so that this is no matter of luck."""
    rng = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(rng.choices(letters, k=rng.randint(3, 9))) for _ in range(500)]
    near = missed = met = 0
    for _ in range(150):
        caption = rng.choices(words, k=14)
        other = list(caption)
        other[rng.randrange(14)] = rng.choice(words)
        one, two, far = (
            shingles.shingles(shingles.normalized(" ".join(text)))
            for text in (caption, other, rng.choices(words, k=14))
        )
        met += bool(set(shingles.keys(one)) & set(shingles.keys(far)))
        if shingles.similarity(one, two) >= 0.75:
            near += 1
            missed += not set(shingles.keys(one)) & set(shingles.keys(two))
    assert near > 60
    assert missed == 0
    assert met <= 3


def test_keys_do_not_change_from_machine_to_machine() -> None:
    found = shingles.keys(shingles.shingles("a brown dog in the park"))
    assert found[:2] == [8339055590397258582, 1952480648742224959]
    assert all(-(2**63) <= key < 2**63 for key in found)


# --- near images ----------------------------------------------------------------------------------


def test_a_picture_keeps_its_hash_through_formats_and_sizes() -> None:
    hashes = [perceptual.phash(photo(seed, 400, 300)) for seed in range(12)]
    for seed, first in enumerate(hashes):
        image = photo(seed, 400, 300)
        small = image.resize((160, 120), Image.Resampling.LANCZOS)
        for data in (
            encoded(image, "JPEG", quality=50),
            encoded(image, "WEBP", quality=60),
            encoded(small, "JPEG", quality=80),
            encoded(small.convert("L"), "PNG"),
        ):
            again = perceptual.phash(Image.open(io.BytesIO(data)))
            assert perceptual.distance(first, again) <= 4
    apart = [
        perceptual.distance(one, other) for i, one in enumerate(hashes) for other in hashes[:i]
    ]
    assert min(apart) > 10


@pytest.mark.parametrize("colour", ["white", "black", (3, 200, 90)])
def test_flat_pictures_share_one_hash(colour: Any) -> None:
    data = encoded(Image.new("RGB", (99, 55), colour), "JPEG", quality=70)
    assert signals(data, "x")["phash"] == perceptual.FLAT


@UNHURRIED
@given(
    st.integers(0, 2**64 - 1),
    st.integers(1, perceptual.MAX_DISTANCE),
    st.data(),
)
def test_every_pair_within_the_distance_shares_a_key(
    hash_: int, most: int, data: st.DataObject
) -> None:
    flipped = data.draw(st.sets(st.integers(0, 63), max_size=most))
    other = hash_
    for bit in flipped:
        other ^= 1 << bit
    one, two = f"{hash_:016x}", f"{other:016x}"
    assert perceptual.distance(one, two) == len(flipped)
    keys = [perceptual.keys(name, most) for name in (one, two)]
    assert set(keys[0]) & set(keys[1])
    for found in keys:
        assert len(found) == (most + 1) * (most + 2) // 2 == len(set(found))
        assert all(0 <= key < 2**63 for key in found)


def test_random_hashes_hardly_ever_share_a_key() -> None:
    rng = random.Random(0)
    hashes = [f"{rng.getrandbits(64):016x}" for _ in range(400)]
    keys = [set(perceptual.keys(name, 4)) for name in hashes]
    shared = sum(bool(one & other) for i, one in enumerate(keys) for other in keys[:i])
    assert shared <= 6  # of 79,800 pairs; 15 keys of 21.3 bits: 0.4 are to be expected


# --- groups ---------------------------------------------------------------------------------------

NODES = [(n % 2, n * 7919 % 31, f"node-{n}") for n in range(12)]


@UNHURRIED
@given(
    st.sets(st.tuples(st.sampled_from(NODES), st.sampled_from(NODES)), max_size=40), st.randoms()
)
def test_stars_are_near_their_centres_and_centres_are_apart(
    drawn: set[tuple[Node, Node]], rng: random.Random
) -> None:
    edges = [(min(pair), max(pair)) for pair in drawn if pair[0] != pair[1]]
    claims = claims_of(edges)
    by_name = {node[2]: node for node in NODES}
    joined = {(one[2], other[2]) for one, other in edges}
    for name, centre in claims.items():
        assert (centre, name) in joined
        assert centre not in claims
        assert by_name[centre] < by_name[name]
        nearer = [o for o, n in joined if n == name and o not in claims]
        assert centre == min(nearer, key=by_name.__getitem__)
    for small, big in joined:
        assert small in claims or big in claims
    rng.shuffle(edges)
    assert claims_of(edges) == claims


# --- text in the image ----------------------------------------------------------------------------


def sign(text: str) -> bytes:
    image = Image.new("RGB", (400, 200), "white")
    font = ImageFont.load_default(28)
    ImageDraw.Draw(image).text((20, 60), text, fill="black", font=font)
    return encoded(image)


def test_text_in_the_image_and_how_much_of_the_caption_it_holds() -> None:
    wanted = Wanted(frozenset({"text_in_image"}))
    found = signals(sign("SUMMER SALE\nat the harbour"), "Summer sale, a red poster", wanted)
    assert found["text_in_image"].lower().split() == ["summer", "sale", "at", "the", "harbour"]
    assert found["text_in_image_overlap"] == pytest.approx(2 / 5)
    none = signals(sign(""), "!?", wanted)
    assert (none["text_in_image"], none["text_in_image_overlap"]) == ("", None)


def test_overlap_counts_different_words() -> None:
    assert text_in_image.overlap("BIG big Cat", "big, big dog") == 0.5
    assert text_in_image.overlap("", "a dog") == 0
    assert text_in_image.overlap("a dog", "...") is None


def test_a_library_that_fails_is_a_status(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any) -> str:
        raise RuntimeError("no such\nthing")

    monkeypatch.setattr(perceptual, "phash", fail)
    monkeypatch.setattr(language, "language", fail)
    found = signals(encoded(photo(1)), "a caption")
    assert found["signal_status"] == SIGNAL_ERROR
    assert "caption: RuntimeError: no such; image: RuntimeError" in found["signal_reason"]
    assert (found["width"], found["caption_words"]) == (240, 2)


def test_a_library_that_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs.signals, "find_spec", lambda name: None)
    config = SignalsConfig(pairs="P", output="S", signal=["size", "text_in_image"])
    with pytest.raises(UsageError, match=r"text_in_image needs rapidocr.*mlm-filter\[ocr\]"):
        jobs.signals.run(None, config)  # type: ignore[arg-type]  # before Spark is asked for anything


# --- batches --------------------------------------------------------------------------------------


def batch_of(rows: list[tuple[Any, ...]], names: list[str], kinds: list[pa.DataType]) -> Any:
    arrays = [pa.array(c, k) for c, k in zip(zip(*rows, strict=True), kinds, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, names)


def test_batches_keep_keys_and_order(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(photo(3, 50, 40)))
    names = ["uid", "image_path", "caption"]
    odd = b"\xff\xfe uid"
    rows = [
        (odd, str(tmp_path / "a.png").encode(), b"a dog"),
        (None, str(tmp_path / "none.png").encode(), b"\xff"),
        (b"c", None, None),
    ]
    batch = batch_of(rows, names, [pa.binary()] * 3)
    calls: Iterator[Any] = iter([batch, batch.slice(0, 0)])
    one, empty = measure_batches(calls, ["uid"], ALL)
    assert empty.num_rows == 0
    assert one.schema.names == empty.schema.names == ["uid", *SCHEMA.names]
    assert one.column("uid").to_pylist() == [odd, None, b"c"]
    assert one.column("width").to_pylist() == [50, None, None]
    assert one.column("signal_status").to_pylist() == ["ok", "bad_image", "bad_image"]
    assert "none.png" in one.column("signal_reason")[1].as_py()
    assert one.column("signal_reason")[2].as_py() == "no image (null); null caption"
