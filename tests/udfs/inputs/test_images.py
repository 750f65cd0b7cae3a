"""Image bytes to pictures: every format, size limits, and no exception other than ImageError."""

import contextlib

import numpy as np
import pytest
from damaged_images import DAMAGED
from pictures import encoded, picture
from PIL import Image

from udfs.inputs import images


def similar(decoded: Image.Image, expected: Image.Image, tolerance: float = 12) -> bool:
    a, b = (np.asarray(i.convert("RGB"), dtype=float) for i in (decoded, expected))
    return a.shape == b.shape and bool(np.abs(a - b).mean() < tolerance)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM"])
def test_formats(kind: str) -> None:
    assert similar(images.decode(encoded(picture(), kind)), picture())


def test_cmyk() -> None:
    assert similar(images.decode(encoded(picture().convert("CMYK"), "JPEG")), picture())


def test_12_bits_in_a_16_bit_tiff_are_scaled_by_their_maximum() -> None:
    grey = np.asarray(picture().convert("L")).astype(np.float64)
    grey = (grey - grey.min()) / np.ptp(grey)
    found = images.decode(encoded(Image.fromarray((grey * 4095).astype(np.uint16)), "TIFF"))
    assert similar(found, Image.fromarray((grey * 255).astype(np.uint8)), tolerance=1)
    dark = images.decode(encoded(Image.fromarray((grey * 5000).astype(np.uint16)), "TIFF"))
    assert np.asarray(dark).max() == round(5000 / 257)  # 16 bits, as it says


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(kind: str) -> None:
    grey = np.asarray(picture().convert("L"))
    wide = Image.fromarray(grey.astype(np.uint16) * 257)
    assert similar(images.decode(encoded(wide, kind)), Image.fromarray(grey), tolerance=1)


def test_palette_with_transparency_is_put_on_white() -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((0, 0), 1)
    decoded = images.decode(encoded(image, "PNG", transparency=0))
    assert decoded.getpixel((5, 5)) == (255, 255, 255)
    assert decoded.getpixel((0, 0)) == (0, 0, 255)


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    decoded = images.decode(encoded(picture(40, 30), "JPEG", exif=exif, quality=95))
    assert decoded.size == (30, 40)
    assert similar(decoded, picture(40, 30).rotate(-90, expand=True))


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 900)])
def test_extreme_shapes_are_padded_to_a_sane_aspect(size: tuple[int, int]) -> None:
    decoded = images.decode(encoded(Image.new("RGB", size, (9, 9, 9))))
    assert max(decoded.size) <= images.MAX_SIDE
    assert max(decoded.size) <= images.MAX_ASPECT * min(decoded.size)


def test_pad_makes_a_square_around_the_picture() -> None:
    decoded = images.decode(encoded(picture(40, 30)), fit="pad")
    assert decoded.size == (40, 40)
    assert decoded.getpixel((20, 0)) == images.GREY
    assert similar(decoded.crop((0, 5, 40, 35)), picture(40, 30))


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
            for position in rng.integers(0, len(data), 5):
                data[position] = rng.integers(0, 256)
            with contextlib.suppress(images.ImageError):
                assert images.decode(bytes(data)).mode == "RGB"


def test_large_pictures_are_bounded() -> None:
    decoded = images.decode(encoded(Image.new("RGB", (6000, 3000)), "JPEG"))
    assert decoded.size == (2048, 1024) or max(decoded.size) <= images.MAX_SIDE
