"""Re-encodes images for programs that read only a few formats, or want smaller ones.

The same bytes and settings give the same bytes, as long as Pillow and its codecs are the same.
"""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from udfs.inputs.images import ImageError, to_rgb, upright, with_image

if TYPE_CHECKING:
    from PIL.Image import Image

EXTENSIONS = {
    "JPEG": "jpg",
    "PNG": "png",
    "WEBP": "webp",
    "GIF": "gif",
    "TIFF": "tif",
    "BMP": "bmp",
    "AVIF": "avif",
    "JPEG2000": "jp2",
    "PPM": "ppm",
    "ICO": "ico",
    "MPO": "jpg",  # several JPEGs in one
}
"""PIL's name of a format -> its usual file extension."""

QUALITY = 95
"""Quality of JPEG and WebP, unless another is asked for."""

_WRITTEN = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}
_LONGEST_SIDE = {"jpg": 65_500, "webp": 16_383}  # what the codecs can write


@dataclass(frozen=True)
class ImageEncoding:
    """How images are written.

    Attributes:
        format: jpg, png or webp; None: an image keeps its format if it is one of these, and becomes
            png where its size changes.
        size: the longest side in pixels, at most; None: any. Images are never enlarged.
        quality: of jpg and webp, 1 to 100.
    """

    format: str | None = None
    size: int | None = None
    quality: int = QUALITY

    def encode(self, data: bytes) -> bytes:
        """The image in the format and size wanted; `data` itself where it is so already.

        A new image is upright, without metadata, and of the first frame; jpg has white where the
        original is transparent. Raises ImageError for what cannot be decoded or encoded.
        """
        return with_image(data, lambda image: self._encode(image) or data)

    def _encode(self, image: Image) -> bytes | None:
        """The image anew; None where it is as it should be."""
        from PIL import Image as PilImage

        kind = EXTENSIONS.get(image.format or "", "bin")
        target = self.format or (kind if kind in _WRITTEN else "png")
        small = self.size is None or max(image.size) <= self.size
        if small and self.format in (None, kind):
            return None
        if self.size is not None:
            image.draft("RGB", (2 * self.size, 2 * self.size))  # a large JPEG at 1/2, 1/4 ...
        image.load()
        picture = upright(_opaque_or_rgba(image, target), image)
        if self.size is not None:
            picture.thumbnail((self.size, self.size), PilImage.Resampling.LANCZOS)
        longest = max(picture.size)
        if longest > _LONGEST_SIDE.get(target, longest):
            raise ImageError(f"image of {longest} pixels is too long for {target}")
        out = io.BytesIO()
        picture.info.clear()  # PNG would get a profile that need not fit RGB
        options: dict[str, Any] = {} if target == "png" else {"quality": self.quality}
        picture.save(out, _WRITTEN[target], **options)
        return out.getvalue()


def image_extension(data: bytes) -> str:
    """The file extension for an image by its first bytes; `bin` if PIL does not recognise them."""
    from PIL import Image as PilImage

    try:
        with PilImage.open(io.BytesIO(data), formats=_formats()) as image:  # reads the header only
            return EXTENSIONS.get(image.format or "", "bin")
    except Exception:  # PIL's readers raise nearly anything on damaged files
        return "bin"


def _opaque_or_rgba(image: Image, target: str) -> Image:
    transparent = image.has_transparency_data and not image.mode.startswith(("I", "F"))
    if transparent and target != "jpg":
        return image.convert("RGBA")
    return to_rgb(image, image.format)


@functools.cache
def _formats() -> tuple[str, ...]:
    from PIL import Image as PilImage

    PilImage.init()
    return tuple(name for name in EXTENSIONS if name in PilImage.OPEN and name != "MPO")
