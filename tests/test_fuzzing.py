"""Readers of what strangers write: any bytes give a result or a reason, and nothing else.

Each test runs for a few seconds. For an hour, with other input each time:

    MLM_FILTER_FUZZ_SECONDS=600 ./build.sh test tests/test_fuzzing.py
"""

import io
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_models
from fuzzed_rows import TOKENS, fuzzed_caption, fuzzed_image, image_files
from tiny_tars import img2dataset, write_tar
from transformers import AutoProcessor

from udfs.inputs import captions, images, separated_values, tars
from udfs.inputs.images import ImageError
from udfs.outputs.image_encoding import ImageEncoding

SECONDS = float(os.environ.get("MLM_FILTER_FUZZ_SECONDS", "2"))
SEED = random.SystemRandom().randrange(1 << 32) if SECONDS > 2 else 0


@pytest.fixture
def sources() -> Iterator[random.Random]:
    """Sources of random numbers until the time is over. A failure names the last one's seed."""

    def until_the_end() -> Iterator[random.Random]:
        end = time.monotonic() + SECONDS
        number = SEED
        while time.monotonic() < end:
            print("seed", number)
            yield random.Random(number)
            number += 1

    return until_the_end()


def test_images(sources: Iterator[random.Random]) -> None:
    files = image_files()
    for source in sources:
        data = fuzzed_image(source, files)
        encoding = ImageEncoding(source.choice((None, "jpg", "png", "webp")), size=20)
        reasons = []
        try:
            picture = images.decode(data, source.choice(("as_is", "pad")))
        except ImageError as error:
            reasons.append(str(error))
        else:
            assert picture.mode == "RGB"
            assert max(picture.size) <= images.MAX_SIDE
        try:
            encoding.encode(data or b"")
        except ImageError as error:
            reasons.append(str(error))
        assert all(map(str.isprintable, reasons))


def test_captions_and_their_tokens(
    sources: Iterator[random.Random], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tiny_models.llava(tmp_path_factory.mktemp("llava"))
    processor = AutoProcessor.from_pretrained(folder)
    special = set(processor.tokenizer.all_special_ids) - {processor.tokenizer.unk_token_id}
    encode = captions.encoder(processor)
    for source in sources:
        text = captions.clean(fuzzed_caption(source))
        text.encode()
        assert not any(letter < " " and letter not in "\t\n\r" for letter in text)
        ids, _ = encode(text + source.choice(TOKENS), 64)
        assert len(ids) <= 64
        assert not special & set(ids)


def test_tars(sources: Iterator[random.Random], tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "whole.tar", img2dataset(3)).read_bytes()
    path = tmp_path / "fuzzed.tar"
    for source in sources:
        data = bytearray(whole)
        for _ in range(source.randrange(1, 30)):  # headers are at multiples of 512
            where = source.randrange(len(data) // 512) * 512 + source.randrange(160)
            data[where] = source.choice((0, 255, ord("7"), source.randrange(256)))
        if source.random() < 0.3:
            del data[source.randrange(len(data)) :]
        path.write_bytes(data)
        for row in tars.read_tar(str(path)):
            assert row["_left_out"] or row["source_path"].startswith(str(path))
            held = (row[name] for name in ("image", "caption", "metadata", "read_error"))
            assert row["_left_out"] or any(value is not None for value in held)


def test_caption_files(sources: Iterator[random.Random]) -> None:
    letters = '"",\t;|\r\n\0\ufeff aé\u2028\ud7ff='
    for source in sources:
        text = "".join(source.choice(letters) for _ in range(source.randrange(400)))
        separator, quote = source.choice(",\t;|"), source.choice(('"', None))
        rows = list(separated_values.split(io.StringIO(text, newline="\n"), separator, quote))
        fields = sum(len(row) for row in rows)
        assert fields <= text.count(separator) + len(rows)
        if quote is None:
            assert not any(separator in field for row in rows for field in row)
