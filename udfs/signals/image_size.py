"""Width and height of an image from its header: no pixel is decoded."""

from __future__ import annotations

from udfs.inputs import images


def size(data: bytes | None) -> tuple[int, int]:
    """Width and height in pixels as the file states them, each at least 1.

    As stored: a camera's note to turn the picture (EXIF) is not followed, as in DataComp's
    `original_width`; the shorter side and the aspect are the same either way. Raises ImageError for
    what is no image of a format and size that `udfs.inputs.images` decodes. A file that is cut off
    behind its header has a size.
    """
    with images.opened(data) as image:
        width, height = image.size
        return width, height
