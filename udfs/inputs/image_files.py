"""Reads image files on executors; a file that cannot be read gives a reason, not an exception."""

import re
from collections.abc import Iterator

import pyarrow as pa

from udfs.inputs.images import MAX_BYTES, ImageError

SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "tif", "tiff", "bmp", "avif", "jp2", "ppm", "ico")
"""Extensions of image files, in lower case and without the dot."""

BATCH_BYTES = 16 * 1024 * 1024
"""A batch of rows is passed on when its images reach this size."""

_IMAGE = re.compile(rf"\.({'|'.join(SUFFIXES)})$", re.IGNORECASE)


def is_image(name: str) -> bool:
    """Whether a file of this name is an image; `._x.jpg` is macOS metadata about `x.jpg`."""
    return bool(_IMAGE.search(name)) and not name.rpartition("/")[2].startswith("._")


def read(path: str) -> tuple[bytes | None, str | None]:
    """The file's bytes and None, or None and the reason why it cannot be read."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        return None, f"cannot read the file: {getattr(error, 'strerror', None) or error}"
    if len(data) > MAX_BYTES:
        return None, f"cannot read the file: over {MAX_BYTES} bytes"
    return data, None


def read_path(path: str | None) -> bytes | None:
    """The bytes of an image by its path or URI (local, s3://, gs://, hdfs://, abfs:// ...: what
    `pyarrow.fs` opens). None stays None; raises ImageError if the image cannot be read."""
    if path is None:
        return None
    from pyarrow import fs

    try:
        if "://" in path or path.startswith("file:"):
            system, inner = fs.FileSystem.from_uri(path)
        else:
            system, inner = fs.LocalFileSystem(), path
        with system.open_input_file(inner) as file:
            if file.size() > MAX_BYTES:
                raise ImageError(f"image file of {file.size()} bytes is over the limit")
            return bytes(file.read())
    except (OSError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"cannot read {path}: {str(error)[:200]}") from None


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
