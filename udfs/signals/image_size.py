"""Reads the width and height of an image from its header; no pixel is decoded."""

from __future__ import annotations

from udfs.inputs import images


def size(data: bytes | None) -> tuple[int, int]:
    """Width and height in pixels as stored in the file, each at least 1.

    The EXIF orientation is ignored, as in DataComp's `original_width`; the shorter side and the
    aspect are the same either way. A file that is cut off after its header still has a size.
    Raises ImageError unless it is an image of a format and size that `udfs.inputs.images` decodes.
    """
    with images.open_image(data) as image:
        width, height = image.size
        return width, height
