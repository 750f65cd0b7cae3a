"""Bytes to pictures: every format, bounded, and never anything but ImageError."""

import contextlib
import struct
import zlib

import numpy as np
import pytest
from pictures import encoded, picture
from PIL import Image

from udfs.inputs import images


def close(found: Image.Image, wanted: Image.Image, within: float = 12) -> bool:
    a, b = (np.asarray(i.convert("RGB"), dtype=float) for i in (found, wanted))
    return a.shape == b.shape and bool(np.abs(a - b).mean() < within)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM"])
def test_formats(kind: str) -> None:
    assert close(images.decode(encoded(picture(), kind)), picture())


def test_cmyk() -> None:
    assert close(images.decode(encoded(picture().convert("CMYK"), "JPEG")), picture())


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(kind: str) -> None:
    grey = np.asarray(picture().convert("L"))
    wide = Image.fromarray(grey.astype(np.uint16) * 257)
    assert close(images.decode(encoded(wide, kind)), Image.fromarray(grey), within=1)


def test_palette_with_transparency_lies_on_white() -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((0, 0), 1)
    found = images.decode(encoded(image, "PNG", transparency=0))
    assert found.getpixel((5, 5)) == (255, 255, 255)
    assert found.getpixel((0, 0)) == (0, 0, 255)


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    found = images.decode(encoded(picture(40, 30), "JPEG", exif=exif, quality=95))
    assert found.size == (30, 40)
    assert close(found, picture(40, 30).rotate(-90, expand=True))


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 900)])
def test_odd_sizes_are_padded_to_a_sane_aspect(size: tuple[int, int]) -> None:
    found = images.decode(encoded(Image.new("RGB", size, (9, 9, 9))))
    assert max(found.size) <= images.MAX_SIDE
    assert max(found.size) <= images.MAX_ASPECT * min(found.size)


def test_pad_makes_a_square_around_the_picture() -> None:
    found = images.decode(encoded(picture(40, 30)), fit="pad")
    assert found.size == (40, 40)
    assert found.getpixel((20, 0)) == images.GREY
    assert close(found.crop((0, 5, 40, 35)), picture(40, 30))


def bomb() -> bytes:
    """A PNG of a few bytes that claims 50,000 x 50,000 pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def broken_tiff() -> bytes:
    data = bytearray(encoded(picture(), "TIFF"))
    data[4:8] = b"\xff\xff\xff\x7f"  # the directory lies far beyond the end
    return bytes(data)


JPEG = encoded(picture(200, 200), "JPEG")
DAMAGED = {
    "null": (None, "null"),
    "empty": (b"", "0 bytes"),
    "truncated_jpeg": (JPEG[: len(JPEG) // 2], "truncated"),
    "html": (b"<!DOCTYPE html><html>not found</html>", "HTML"),
    "json": (b'{"error": 404}', "JSON"),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
    "pdf": (b"%PDF-1.7 ...", "PDF"),
    "bomb": (bomb(), "over the limit"),
    "noise": (bytes(range(256)) * 8, "known format"),
    "header_only": (JPEG[:20], "known format|damaged"),
    "truncated_png": (encoded(picture(99, 99))[:400], "damaged"),
    "broken_tiff": (broken_tiff(), "known format|damaged"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "known format"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_an_image_error_with_a_reason_in_one_line(name: str) -> None:
    data, reason = DAMAGED[name]
    with pytest.raises(images.ImageError, match=reason) as caught:
        images.decode(data)
    assert "\n" not in str(caught.value)


def test_flipped_bytes_never_raise_anything_else() -> None:
    rng = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF"):
        whole = encoded(picture(64, 64), kind)
        for _ in range(40):
            data = bytearray(whole)
            for at in rng.integers(0, len(data), 5):
                data[at] = rng.integers(0, 256)
            with contextlib.suppress(images.ImageError):
                assert images.decode(bytes(data)).mode == "RGB"


def test_large_pictures_are_bounded() -> None:
    found = images.decode(encoded(Image.new("RGB", (6000, 3000)), "JPEG"))
    assert found.size == (2048, 1024) or max(found.size) <= images.MAX_SIDE
