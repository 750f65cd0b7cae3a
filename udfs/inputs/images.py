"""Turns the bytes of any web image into a small RGB picture, within limits of size and memory.

Every failure is an ImageError whose reason a person understands; no input, however crafted, may
raise anything else or use unbounded memory.
"""

from __future__ import annotations

import functools
import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from udfs.core.arrow_values import as_bytes
from udfs.core.file_locks import machine_lock
from udfs.core.free_memory import release_free_memory
from udfs.core.visible_text import visible

if TYPE_CHECKING:
    from PIL.Image import Image

Result = TypeVar("Result")

# Formats used on the web whose decoders need no helper program. PIL's others (PostScript, PSD,
# FITS ...) would be attack surface without any use here.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM", "ICO")
MAX_PIXELS = 64_000_000  # 192 MB as RGB: the largest camera pictures pass, decompression bombs fail
MAX_BYTES = 256 * 1024 * 1024
MAX_SIDE = 2048  # more than any vision tower here uses; bounds the memory of the prefetch queue
LARGE_BYTES = 192 * 1024 * 1024  # of memory; larger pictures are decoded one at a time
BAND_PIXELS = 1_000_000  # converted at a time
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

_ORIENTATION = 0x0112  # EXIF's tag

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
    return _pad(with_image(data, _decode), fit)


def _decode(image: Image) -> Image:
    image.draft("RGB", (MAX_SIDE, MAX_SIDE))  # JPEG: decode large ones at 1/2, 1/4 ...
    image.load()
    picture = _shrink(upright(to_rgb(image, image.format), image))
    return image.copy() if picture is image else picture  # without the file and its decoder


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
        reason = visible(str(error).split("\n")[0]) or type(error).__name__
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


def with_image(
    data: bytes | bytearray | memoryview | None, use: Callable[[Image], Result]
) -> Result:
    """What `use` makes of an image, which is open; as `open_image`. A picture that takes much
    memory waits until no other such one is decoded on this machine."""
    with open_image(data) as image:
        if image.width * image.height * _bytes_per_pixel(image) <= LARGE_BYTES:
            return use(image)
    del image  # a decoder may have taken memory already
    with machine_lock("large-picture"):
        try:
            return _use_again(data, use)
        finally:
            release_free_memory()


def _bytes_per_pixel(image: Image) -> int:
    """What decoding a large picture takes, by measurement: its pixels before and after they become
    RGB, and what the decoder keeps."""
    if image.format in ("WEBP", "JPEG2000"):
        return 19
    as_it_is = image.mode == "RGB" and image.format != "AVIF" and "progressive" not in image.info
    return 6 if as_it_is else 10


def _use_again(
    data: bytes | bytearray | memoryview | None, use: Callable[[Image], Result]
) -> Result:
    """In a frame of its own, with which the picture is gone."""
    with open_image(data) as image:
        return use(image)


def to_rgb(image: Image, kind: str | None) -> Image:
    """A picture of any mode as RGB of 8 bits, over white; `kind` is PIL's name of its format.
    May return `image` itself."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    grey = _Grey.of(image, kind) if image.mode.startswith("I") or image.mode == "F" else None
    if image.width * image.height <= BAND_PIXELS:
        return _band_to_rgb(image, grey)
    from PIL import Image as PilImage

    canvas = PilImage.new("RGB", image.size)
    for top, band in _bands(image):
        canvas.paste(_band_to_rgb(band, grey), (0, top))
    return canvas


def _bands(image: Image) -> Iterator[tuple[int, Image]]:
    """An image in bands of full width: the first line of each, and the band."""
    height = max(1, BAND_PIXELS // image.width)
    for top in range(0, image.height, height):
        yield top, image.crop((0, top, image.width, min(top + height, image.height)))


def _band_to_rgb(image: Image, grey: _Grey | None) -> Image:
    if grey is not None:
        image = grey.to_8_bit(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        from PIL import Image as PilImage

        rgba = image.convert("RGBA")
        image = PilImage.alpha_composite(PilImage.new("RGBA", rgba.size, (*WHITE, 255)), rgba)
    return image.convert("RGB")


@dataclass(frozen=True)
class _Grey:
    """How 16-bit and wider greys become 8 bits: PIL's own conversion clips them to white.

    Scanners and microscopes keep 10 or 12 bits in 16-bit TIFFs, which as 16 bits would be nearly
    black: TIFFs whose values stay below 2**12 are scaled by their own maximum.
    """

    black: float
    scale: float

    @classmethod
    def of(cls, image: Image, kind: str | None) -> _Grey:
        bands = (_values(band) for _, band in _bands(image))
        limits = [(values.min(), values.max()) for values in bands]
        low, high = float(min(low for low, _ in limits)), float(max(high for _, high in limits))
        if image.mode.startswith("I;16") or (low >= 0 and 255 < high <= 65535):
            narrow = kind == "TIFF" and 255 < high < 1 << 12
            return cls(0.0, 255.0 / high if narrow else 1 / 257.0)
        if low < 0 or high > 255:  # no agreed range: use the picture's own
            return cls(low, 255.0 / max(high - low, 1e-9))
        return cls(0.0, 255.0 if high <= 1.0 and image.mode == "F" else 1.0)

    def to_8_bit(self, image: Image) -> Image:
        import numpy as np
        from PIL import Image as PilImage

        values = (_values(image) - self.black) * self.scale
        return PilImage.fromarray(values.round().clip(0, 255).astype(np.uint8))


def _values(image: Image) -> Any:
    import numpy as np

    return np.nan_to_num(np.asarray(image, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)


def upright(picture: Image, image: Image) -> Image:
    """`picture`, which is made from `image` or is it, turned as the EXIF data of `image` say."""
    from PIL import ImageOps

    orientation = image.getexif().get(_ORIENTATION, 1)
    if orientation == 1:
        return picture
    picture.getexif()[_ORIENTATION] = orientation  # where it is a new picture without any
    return ImageOps.exif_transpose(picture)


def _shrink(image: Image) -> Image:
    """`image` itself, made smaller if need be."""
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
