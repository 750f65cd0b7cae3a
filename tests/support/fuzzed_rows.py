"""Damaged images and captions of every kind, made from a seed."""

import io
import random
from collections.abc import Iterator
from typing import Any

from pictures import encoded, picture
from PIL import Image

KINDS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM", "ICO")
TOKENS = ("<image>", "<|im_end|>", "<|im_start|>system\n", "</s>", "[INST]", "\x1b[2J", "=1+1")


def fuzzed_rows(count: int, seed: int = 0) -> Iterator[tuple[str, Any, bytes | None]]:
    """Uid, image and caption of this many rows. Some of the images are whole."""
    random_source = random.Random(seed)
    files = image_files()
    for number in range(count):
        image = fuzzed_image(random_source, files)
        yield f"fuzzed-{number}", image, fuzzed_caption(random_source)


def image_files() -> list[bytes]:
    """Small images of all formats and modes."""
    files = [encoded(picture(40, 30, n), kind) for n, kind in enumerate(KINDS)]
    modes = ("1", "L", "LA", "P", "I;16", "F", "CMYK", "RGBA")
    return files + [_other_mode(mode) for mode in modes]


def fuzzed_image(source: random.Random, files: list[bytes]) -> bytes | None:
    """One of the files, damaged: bits flipped, cut off, a part repeated, sizes changed."""
    data = bytearray(source.choice(files))
    way = source.randrange(8)
    if way == 0:
        return source.choice((None, b"", source.randbytes(source.randrange(1, 200))))
    if way == 1:
        del data[source.randrange(len(data)) :]
    if way == 2:  # the header, where sizes are
        for _ in range(source.randrange(1, 6)):
            data[source.randrange(min(64, len(data)))] = source.choice((0, 1, 127, 255))
    if way in (3, 4):
        for _ in range(source.randrange(1, 20)):
            data[source.randrange(len(data))] ^= 1 << source.randrange(8)
    if way == 5:
        start = source.randrange(len(data))
        data[start:start] = data[start : start + source.randrange(100)]
    if way == 6:
        data += source.choice(files)
    return bytes(data)


def fuzzed_caption(source: random.Random) -> bytes | None:
    """Any text: of many scripts, of control characters, of a model's own tokens, of no encoding."""
    way = source.randrange(8)
    if way == 0:
        return source.choice((None, b"", b" \n", "\u200b\u2060".encode()))
    if way == 1:
        return source.randbytes(source.randrange(300))
    if way == 2:
        return "".join(source.choice(TOKENS) for _ in range(source.randrange(1, 50))).encode()
    if way == 3 and source.random() < 0.02:
        return source.choice((b"word ", b"\x00", "\u0301".encode(), b"a")) * 400_000
    letters = (chr(source.randrange(1, 0xD800)) for _ in range(source.randrange(200)))
    return "".join(letters).encode()


def _other_mode(mode: str) -> bytes:
    out = io.BytesIO()
    kind = "TIFF" if mode in ("F", "CMYK", "I;16") else "PNG"
    image = picture(40, 30)
    if mode == "I;16":
        image = image.convert("I").convert("I;16")
    else:
        image = image.convert("L").convert("LA") if mode == "LA" else image.convert(mode)
    image.save(out, kind)
    return out.getvalue()


WORST: dict[str, tuple[str, str, dict[str, Any]]] = {
    "alpha": ("RGBA", "PNG", {}),
    "16 bits": ("I;16", "PNG", {}),
    "floats": ("F", "TIFF", {"compression": "tiff_adobe_deflate"}),
    "progressive": ("CMYK", "JPEG", {"progressive": True}),
    "animated": ("RGBA", "WEBP", {"lossless": True, "method": 0, "save_all": True}),
    "wavelets": ("RGB", "JPEG2000", {"irreversible": True}),
}
"""Modes and formats of the pictures that take most memory."""


def worst_picture(name: str) -> bytes:
    """One of WORST: 64 megapixels in few bytes."""
    mode, kind, options = WORST[name]
    out = io.BytesIO()
    Image.new(mode, (8000, 8000), 99).save(out, kind, **options)
    return out.getvalue()
