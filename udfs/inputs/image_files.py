"""Reads image files on executors; a file that cannot be read gives a reason, not an exception."""

import re
from collections.abc import Iterator

import pyarrow as pa

from udfs.inputs.image_roots import read_regular_file

SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "tif", "tiff", "bmp", "avif", "jp2", "ppm", "ico")
"""Extensions of image files, in lower case and without the dot."""

BATCH_BYTES = 16 * 1024 * 1024
"""A batch of rows is passed on when its images reach this size."""

_IMAGE = re.compile(rf"\.({'|'.join(SUFFIXES)})$", re.IGNORECASE)


def is_image(name: str) -> bool:
    """Whether a file of this name is an image; `._x.jpg` is macOS metadata about `x.jpg`."""
    return bool(_IMAGE.search(name)) and not name.rpartition("/")[2].startswith("._")


def read(path: str) -> tuple[bytes | None, str | None]:
    """The bytes of a file that the user's folder has, through links, and None; or None and the
    reason why it cannot be read."""
    try:
        return read_regular_file(path), None
    except (OSError, ValueError) as error:
        return None, f"cannot read the file: {getattr(error, 'strerror', None) or error}"


def with_images(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Add `image` (bytes) and `read_error` after each batch's columns, read from `source_path`.

    Yields batches of about BATCH_BYTES. The other columns are never converted to Python objects,
    so text in a broken encoding passes through.
    """
    for batch in batches:
        paths = batch.column("source_path").to_pylist()
        images: list[bytes | None] = []
        errors: list[str | None] = []
        start = size = 0
        for row, path in enumerate(paths, start=1):
            image, error = read(path)
            images.append(image)
            errors.append(error)
            size += len(image or b"")
            if size >= BATCH_BYTES or row == len(paths):
                yield _with_columns(batch.slice(start, len(images)), images, errors)
                images, errors, start, size = [], [], row, 0


def _with_columns(
    batch: pa.RecordBatch, images: list[bytes | None], errors: list[str | None]
) -> pa.RecordBatch:
    columns = [*batch.columns, pa.array(images, pa.binary()), pa.array(errors, pa.string())]
    return pa.RecordBatch.from_arrays(columns, [*batch.schema.names, "image", "read_error"])
