"""The pairs that the page shows, and their thumbnails, which are made on the executors."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from udfs.inputs.image_roots import ImageRoots
from udfs.inputs.images import ImageError, decode

SIDE = 240
"""Pixels of a thumbnail's longer side: sharp on a phone at 1.5 pixels per point."""

MAX_BYTES = 12_000
"""Of one thumbnail: with MAX_PICTURES and the charts a page stays under 5 MB."""

MAX_PICTURES = 160

_QUALITIES = (72, 55, 40, 25)


@dataclass(frozen=True)
class Picture:
    """One pair. `thumbnail` is WebP, or None for the reason `problem`; `caption` is unchanged."""

    uid: str
    value: float | None  # of the signal by which it was chosen
    caption: str | bytes | None
    keep: bool
    thumbnail: bytes | None = None
    problem: str | None = None
    scores: Mapping[str, float | None] = field(default_factory=dict)
    first_failed_rule: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Strip:
    """Pictures in a row that belong together, such as the best by one metric."""

    title: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Gallery:
    """Strips under one heading: at a rule's threshold, or at a signal's two ends."""

    title: str
    signal: str
    strips: tuple[Strip, ...]
    note: str = ""
    kind: str = "ends"  # "line" at a rule's threshold


def thumbnail(image: bytes | None) -> bytes:
    """A WebP with sides of at most SIDE and about MAX_BYTES. Raises ImageError as `decode` does."""
    small = decode(image)
    for side in (SIDE, SIDE // 2):
        small.thumbnail((side, side))
        for quality in _QUALITIES:
            out = io.BytesIO()
            small.save(out, "WEBP", quality=quality, method=4)
            if out.tell() <= MAX_BYTES:
                return out.getvalue()
    return out.getvalue()


def thumbnail_or_problem(
    image: bytes | None, path: str | None = None, roots: ImageRoots | None = None
) -> tuple[bytes | None, str | None]:
    """The thumbnail of an image, or of the file at `path`, and None; or None and the problem."""
    try:
        return thumbnail(roots.read(path) if roots else image), None
    except ImageError as error:
        return None, str(error)


def with_thumbnails(
    batches: Iterator[pa.RecordBatch], roots: ImageRoots | None = None
) -> Iterator[pa.RecordBatch]:
    """Each batch with `thumbnail` and `problem` in place of `image`, or of `image_path`, which is
    read below the roots."""
    for batch in batches:
        names = batch.schema.names
        image = batch.column("image").to_pylist() if "image" in names else None
        paths = batch.column("image_path").to_pylist() if "image_path" in names else None
        thumbnails = [
            thumbnail_or_problem(
                image[row] if image else None, paths[row] if paths else None, roots
            )
            for row in range(batch.num_rows)
        ]
        rest = [name for name in names if name not in ("image", "image_path")]
        columns = [batch.column(name) for name in rest]
        columns += [
            pa.array([data for data, _ in thumbnails], pa.binary()),
            pa.array([problem for _, problem in thumbnails], pa.string()),
        ]
        yield pa.RecordBatch.from_arrays(columns, [*rest, "thumbnail", "problem"])
