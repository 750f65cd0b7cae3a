"""Fills in images of which a table has only the path."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from udfs.core.error_lines import one_line
from udfs.inputs.image_files import BATCH_BYTES, read, read_path
from udfs.inputs.images import ImageError

PATH = "_linked_image"
"""The column with the path or URI of an image that is to be read; null for other rows."""


def with_linked_images(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Batches with `image` (bytes) read where PATH is set, or else a reason in `read_error`.

    Yields batches with about BATCH_BYTES of images read. Other columns pass through unchanged.
    """
    for batch in batches:
        start = size = 0
        images = batch.column("image").to_pylist()
        errors = batch.column("read_error").to_pylist()
        for row, path in enumerate(batch.column(PATH).to_pylist()):
            if path is not None:
                images[row], error = _read(path)
                errors[row] = errors[row] or error
                size += len(images[row] or b"")
            end = row + 1
            if size >= BATCH_BYTES or end == batch.num_rows:
                columns = dict(
                    zip(batch.schema.names, batch.slice(start, end - start), strict=True)
                )
                columns["image"] = pa.array(images[start:end], pa.binary())
                columns["read_error"] = pa.array(errors[start:end], pa.string())
                yield pa.RecordBatch.from_pydict(columns)
                start, size = end, 0


def _read(path: str) -> tuple[bytes | None, str | None]:
    """As `image_files.read`, also for URIs."""
    if path.startswith("/"):
        return read(path)
    try:
        return read_path(path), None
    except ImageError as error:
        return None, str(error)
    except Exception as error:  # a file system may raise any exception
        return None, f"cannot read {path}: {one_line(error)}"
