"""Turns the bytes of any web image into a small RGB picture, within limits of size and memory.

Every failure is an ImageError whose reason a person understands; no input, however crafted, may
raise anything else or use unbounded memory.
"""

from __future__ import annotations

import functools
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from udfs.core.arrow_values import as_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

# Formats used on the web whose decoders need no helper program. PIL's others (PostScript, PSD,
# FITS ...) would be attack surface without any use here.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM", "ICO")
MAX_PIXELS = 64_000_000  # 192 MB as RGB: the largest camera pictures pass, decompression bombs fail
MAX_BYTES = 256 * 1024 * 1024
MAX_SIDE = 2048  # more than any vision tower here uses; bounds the memory of the prefetch queue
MAX_ASPECT = 20  # beyond this, processors fail (Qwen2-VL at 200) or round a side to 0
_MAGIC = (
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (b"8BPS", "a Photoshop document, PSD"),
    (b"%!ps", "PostScript"),
    (b"%pdf", "a PDF"),
    (b"<!doctype", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<head", "an HTML page"),
    (b"<body", "an HTML page"),
    (b"<?xml", "XML or SVG"),
    (b"<svg", "XML or SVG"),
    (b"{", "JSON"),
    (b"[", "JSON"),
    (b"\x1f\x8b", "gzip"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1aE\xdf\xa3", "a video"),
)
"""How files that are taken for images begin, and what they are."""

GREY = (124, 116, 104)  # ImageNet's mean colour: padding that a vision tower sees as nearly zero
WHITE = (255, 255, 255)


class ImageError(ValueError):
    """These bytes are not an image that can be scored; the message says why, in one line."""


def decode(data: bytes | bytearray | memoryview | None, fit: str = "as_is") -> Image:
    """Decode to RGB, upright (EXIF), with sides of at most MAX_SIDE and an aspect of at most
    MAX_ASPECT.

    Takes the first frame of an animation and the first page of a document; puts transparency over
    white; scales 16-bit grey to 8 bits; converts CMYK and palettes. `fit="pad"` pads to a square.
    Raises ImageError for anything that is not a complete image of a known format and sane size.
    """
    from PIL import ImageOps

    with open_image(data) as image:
        image.draft("RGB", (MAX_SIDE, MAX_SIDE))  # JPEG: decode large ones at 1/2, 1/4 ...
        image.load()
        upright = ImageOps.exif_transpose(image)
        return _pad(_shrink(to_rgb(upright, image.format)), fit)


@contextmanager
def open_image(data: bytes | bytearray | memoryview | None) -> Iterator[Image]:
    """Open an image of a known format and sane size: its header is read, no pixel is decoded.
    Whatever fails here or in the body of the `with` block becomes an ImageError."""
    if data is None:
        raise ImageError("no image (null)")
    try:
        data = as_bytes(data)
    except TypeError as error:
        raise ImageError(f"not the bytes of an image: {error}") from None
    if len(data) == 0:
        raise ImageError("empty image (0 bytes)")
    if len(data) > MAX_BYTES:
        raise ImageError(f"image file of {len(data)} bytes is over the limit of {MAX_BYTES}")
    from PIL import Image as PilImage
    from PIL import UnidentifiedImageError

    try:
        # PIL warns of bombs at its own limit; ours is checked before any pixel is decoded.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with PilImage.open(io.BytesIO(data), formats=_formats()) as image:
                _check_size(image.size)
                yield image
    except ImageError:
        raise
    except PilImage.DecompressionBombError as error:  # so large that PIL refuses it first
        raise ImageError(f"image is over the limit of {MAX_PIXELS} pixels: {error}") from None
    except UnidentifiedImageError:
        raise ImageError(f"not an image of a known format{_format_hint(data)}") from None
    except Exception as error:  # PIL's decoders raise nearly anything on damaged files
        reason = str(error).split("\n")[0] or type(error).__name__
        raise ImageError(f"damaged image: {reason[:200]}") from None


@functools.cache
def _formats() -> tuple[str, ...]:
    """The FORMATS that this build of PIL can read."""
    from PIL import Image as PilImage

    PilImage.init()
    return tuple(name for name in FORMATS if name in PilImage.OPEN)


def _check_size(size: tuple[int, int]) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"image of {width} x {height} pixels")
    if width * height > MAX_PIXELS:
        raise ImageError(f"image of {width} x {height} pixels is over the limit of {MAX_PIXELS}")


def to_rgb(image: Image, kind: str | None) -> Image:
    """A picture of any mode as RGB of 8 bits, over white; `kind` is PIL's name of its format."""
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_8_bit(image, kind)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        from PIL import Image as PilImage

        rgba = image.convert("RGBA")
        image = PilImage.alpha_composite(PilImage.new("RGBA", rgba.size, (*WHITE, 255)), rgba)
    return image.convert("RGB")


def _to_8_bit(image: Image, kind: str | None) -> Image:
    """Scale 16-bit and wider greys to 8 bits: PIL's own conversion clips them to white.

    Scanners and microscopes keep 10 or 12 bits in 16-bit TIFFs, which as 16 bits would be nearly
    black: TIFFs whose values stay below 2**12 are scaled by their own maximum.
    """
    import numpy as np
    from PIL import Image as PilImage

    values = np.asarray(image, dtype=np.float64)
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    if image.mode.startswith("I;16") or (values.min() >= 0 and 255 < values.max() <= 65535):
        narrow = kind == "TIFF" and 255 < values.max() < 1 << 12
        values = values * (255.0 / values.max()) if narrow else values / 257.0
    elif values.min() < 0 or values.max() > 255:  # no agreed range: use the picture's own
        values = (values - values.min()) * (255.0 / max(float(np.ptp(values)), 1e-9))
    elif values.max() <= 1.0 and image.mode == "F":
        values = values * 255.0
    return PilImage.fromarray(values.round().clip(0, 255).astype(np.uint8))


def _shrink(image: Image) -> Image:
    if max(image.size) > MAX_SIDE:
        from PIL import Image as PilImage

        image.thumbnail((MAX_SIDE, MAX_SIDE), PilImage.Resampling.BICUBIC, reducing_gap=3.0)
    return image


def _pad(image: Image, fit: str) -> Image:
    from PIL import Image as PilImage

    width, height = image.size
    longest = max(width, height)
    shortest = longest if fit == "pad" else -(-longest // MAX_ASPECT)
    target = (max(width, shortest), max(height, shortest))
    if target == image.size:
        return image
    canvas = PilImage.new("RGB", target, GREY)
    canvas.paste(image, ((target[0] - width) // 2, (target[1] - height) // 2))
    return canvas


def _format_hint(data: bytes | bytearray | memoryview) -> str:
    """What the data seems to be instead of an image, in parentheses, or an empty string."""
    head = bytes(data[:512])
    if head[4:8] == b"ftyp":  # ISO media: the brand tells pictures from videos
        heif = head[8:12] in (
            b"heic",
            b"heix",
            b"heim",
            b"heis",
            b"hevc",
            b"hevx",
            b"mif1",
            b"msf1",
        )
        return " (HEIC)" if heif else " (a video)"
    text = head.lstrip().lower()
    for begins, name in _MAGIC:
        if head.startswith(begins) or text.startswith(begins):
            return f" ({name})"
    return ""
