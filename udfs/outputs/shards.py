"""Writes samples as numbered shards on the executors, each shard in one file or a few.

The rows come sorted by `_shard` and `_index`, with `_image` (bytes, or the path of a file) and
`_caption` (bytes); all other columns are fields of the sample, of any type. The writers decide
what a shard looks like (`outputs/tar_shards.py`, `outputs/parquet_shards.py`).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from udfs.core.arrow_values import python_values
from udfs.core.atomic_files import atomic_write
from udfs.inputs.image_roots import ImageRoots
from udfs.inputs.images import ImageError
from udfs.outputs.field_columns import written_columns
from udfs.outputs.image_encoding import ImageEncoding, image_extension

SHARD_COLUMNS = ("_shard", "_index", "_image", "_caption")
"""Columns with a meaning here, which are not fields of the sample."""

SHARD_SCHEMA = pa.schema(
    [
        ("shard", pa.int64()),
        ("file", pa.string()),
        ("rows", pa.int64()),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
        ("left_out", pa.int64()),
        ("left_out_such_as", pa.list_(pa.string())),
        ("extensions", pa.map_(pa.string(), pa.int64())),
    ]
)
"""The row that reports a finished shard: the attributes of `Shard`."""

_EXAMPLES = 3


@dataclass(frozen=True)
class Layout:
    """What the writers of one export have to know.

    Attributes:
        folder: where the files go; must be the same folder on every machine that writes.
        shards: total number of shards.
        shard_rows: maximum number of samples in a shard.
        plan: id of the export; two shards with the same number and plan have the same content.
    """

    folder: str
    shards: int
    shard_rows: int
    plan: str


@dataclass(frozen=True)
class Sample:
    """One pair with its index in the shard.

    Attributes:
        image: the image file, with the usual extension of its format.
        caption: bytes, since the encoding may be broken.
        fields: a batch of one row.
    """

    index: int
    image: bytes
    extension: str
    caption: bytes
    fields: pa.RecordBatch


@dataclass
class Samples:
    """The samples of one shard, read lazily; the reasons why rows are left out; extensions."""

    rows: Iterator[dict[str, Any]]
    encoding: ImageEncoding | None = None
    roots: ImageRoots | None = None
    left_out: list[str] = field(default_factory=list)
    extensions: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[Sample]:
        """Of several rows with one index (copies in the pairs table) the first is used."""
        for index, (row, *_) in ((i, list(copies)) for i, copies in groupby(self.rows, _index)):
            fields = row["fields"]
            try:
                image = self._image(row["_image"])
            except ImageError as error:
                uid = fields.column("uid")[0] if "uid" in fields.schema.names else None
                self.left_out.append(f"{uid}: {error}")
                continue
            extension = image_extension(image)
            self.extensions[extension] += 1
            yield Sample(index, image, extension, bytes(row["_caption"] or b""), fields)

    def _image(self, value: str | bytes | None) -> bytes:
        image = self.roots.read(value) if self.roots and isinstance(value, str) else value
        if not image or isinstance(image, str):
            raise ImageError("there is no image")
        return self.encoding.encode(bytes(image)) if self.encoding else bytes(image)


@dataclass(frozen=True)
class Shard:
    """A finished shard: its main file and how large that is; what was left out, with examples; how
    many images have which extension.

    The attributes are the columns of SHARD_SCHEMA.
    """

    shard: int
    file: str
    rows: int
    bytes: int
    sha256: str
    left_out: int = 0
    left_out_such_as: tuple[str, ...] = ()
    extensions: dict[str, int] = field(default_factory=dict)


Write = Callable[[Layout, int, pa.Schema, Samples], Shard]
"""Layout, number of the shard, schema of the fields, samples -> the finished shard."""


def write_shards(
    batches: Iterator[pa.RecordBatch],
    layout: Layout,
    write: Write,
    encoding: ImageEncoding | None = None,
    roots: ImageRoots | None = None,
) -> Iterator[pa.RecordBatch]:
    """Write the shards that the rows belong to; yield one row of SHARD_SCHEMA for each shard.

    Memory: one batch, and what the writer keeps of a shard. A row whose image is missing or cannot
    be read leaves its index empty and is counted as left out. `_image` that is a path is read below
    `roots`. Without `encoding`, images are
    written unchanged.
    """
    first = next(batches, None)
    if first is None:
        return
    fields = _fields(first).schema
    for number, rows in groupby(_rows(first, batches), key=_shard):
        shard = write(layout, number, fields, Samples(rows, encoding, roots))
        yield pa.RecordBatch.from_pylist([vars(shard)], SHARD_SCHEMA)


def shard_of(number: int, file: str, rows: int, written: HashingFile, samples: Samples) -> Shard:
    """The `Shard` after its samples have been read and its main file has been written."""
    examples = tuple(samples.left_out[:_EXAMPLES])
    left_out = len(samples.left_out)
    extensions = dict(sorted(samples.extensions.items()))
    return Shard(number, file, rows, written.bytes, written.sha256, left_out, examples, extensions)


def write_stats(path: Path, shard: Shard, plan: str) -> None:
    """Write the statistics of a shard, as its last file: they mark it as complete.

    Counts have img2dataset's names; resharders read `successes`.
    """
    stats = {
        "count": shard.rows + shard.left_out,
        "successes": shard.rows,
        "failed_to_download": shard.left_out,
        "failed_to_resize": 0,
        "status_dict": {"success": shard.rows},
        "file": shard.file,
        "bytes": shard.bytes,
        "sha256": shard.sha256,
        "left_out_such_as": shard.left_out_such_as,
        "extensions": shard.extensions,
        "plan": plan,
    }
    with atomic_write(path) as part:
        part.write_text(json.dumps(stats, indent=1) + "\n", encoding="utf-8")


def read_stats(path: Path, layout: Layout, number: int) -> Shard | None:
    """The shard from an earlier run, if it is complete and of the same plan."""
    try:
        stats = json.loads(path.read_text(encoding="utf-8"))
        if stats["plan"] != layout.plan:
            return None
        if Path(layout.folder, stats["file"]).stat().st_size != stats["bytes"]:
            return None
        return Shard(
            number,
            stats["file"],
            stats["successes"],
            stats["bytes"],
            stats["sha256"],
            stats["failed_to_download"],
            tuple(stats["left_out_such_as"]),
            dict(stats["extensions"]),
        )
    except (OSError, ValueError, LookupError, TypeError):
        return None


class HashingFile:
    """A file to append to, which counts and hashes the bytes that are written."""

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] = path.open("wb")
        self._hash = hashlib.sha256()
        self.bytes = 0

    def __enter__(self) -> HashingFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def write(self, data: bytes) -> int:
        """Append `data`."""
        self._hash.update(data)
        self.bytes += len(data)
        return self._file.write(data)

    def tell(self) -> int:
        """The number of bytes written."""
        return self.bytes

    def flush(self) -> None:
        """Pass buffered data on to the operating system."""
        self._file.flush()

    def close(self) -> None:
        """Close the file; closing it again does no harm."""
        self._file.close()

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._file.closed

    @property
    def sha256(self) -> str:
        """The SHA-256 of the bytes written so far, in hex."""
        return self._hash.hexdigest()


def _rows(first: pa.RecordBatch, rest: Iterator[pa.RecordBatch]) -> Iterator[dict[str, Any]]:
    batch: pa.RecordBatch | None = first
    while batch is not None:
        fields = _fields(batch)
        columns = [python_values(batch.column(name)) for name in SHARD_COLUMNS]
        for number, values in enumerate(zip(*columns, strict=True)):
            row = dict(zip(SHARD_COLUMNS, values, strict=True))
            yield row | {"fields": fields.slice(number, 1)}
        batch = next(rest, None)


def _fields(batch: pa.RecordBatch) -> pa.RecordBatch:
    names = [name for name in batch.schema.names if name not in SHARD_COLUMNS]
    return written_columns(batch.select(names))


def _shard(row: dict[str, Any]) -> int:
    return int(row["_shard"])


def _index(row: dict[str, Any]) -> int:
    return int(row["_index"])
