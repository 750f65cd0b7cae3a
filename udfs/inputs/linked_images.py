"""Fills in images of which a table has only the path."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from udfs.inputs.image_files import BATCH_BYTES
from udfs.inputs.image_roots import ImageRoots
from udfs.inputs.images import ImageError

PATH = "_linked_image"
"""The column with the path or URI of an image that is to be read; null for other rows."""


def with_linked_images(
    batches: Iterator[pa.RecordBatch], roots: ImageRoots
) -> Iterator[pa.RecordBatch]:
    """Batches with `image` (bytes) read where PATH is set, or else a reason in `read_error`.

    Yields batches with about BATCH_BYTES of images read. Other columns pass through unchanged.
    """
    for batch in batches:
        start = size = 0
        images = batch.column("image").to_pylist()
        errors = batch.column("read_error").to_pylist()
        for row, path in enumerate(batch.column(PATH).to_pylist()):
            if path is not None:
                try:
                    images[row] = roots.read(path)
                except ImageError as error:
                    errors[row] = errors[row] or str(error)
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
