"""Bytes to pictures: every format, bounded, and never anything but ImageError."""

import contextlib

import numpy as np
import pytest
from damaged_images import DAMAGED
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
