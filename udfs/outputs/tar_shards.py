"""WebDataset shards as img2dataset lays them out, the same bytes for the same samples.

Of each shard three files: `00000000.tar` with `<key>.jpg`, `.txt` and `.json` for each sample;
`00000000.parquet`, a row a sample; `00000000_stats.json`, which comes last: where it is there, the
shard is whole. Images are the bytes as they were found, and their endings say what they are.
"""

from __future__ import annotations

import functools
import io
import json
import math
import re
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from udfs.core.atomic_files import replacing
from udfs.outputs.shards import Hashed, Layout, Samples, Shard, read_stats, shard_of, write_stats

OWN = re.compile(r"\d{8}(\.tar|\.parquet|_stats\.json)|\..+\.part")
"""Names of the files of such shards, finished or not."""

# What PIL calls a format -> the ending that readers know it by.
_ENDINGS = {
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


def write_tar(layout: Layout, number: int, fields: pa.Schema, samples: Samples) -> Shard:
    """Write one shard. The key of a sample is the shard's number and its index in the shard."""
    tar_path, parquet_path, stats_path = _paths(layout, number)
    digits = max(4, len(str(layout.shard_rows - 1)))
    rows: list[dict[str, Any]] = []
    with (
        replacing(tar_path) as part,
        Hashed(part) as file,
        # as a stream: what the folder is mounted from may not be able to seek
        tarfile.open(  # type: ignore[call-overload]  # a stream is only written to
            fileobj=file, mode="w|", format=tarfile.USTAR_FORMAT
        ) as tar,
    ):
        for sample in samples:
            key = f"{number:08d}{sample.index:0{digits}d}"
            caption = sample.caption.decode("utf-8", "replace")
            about = sample.fields | {"key": key, "caption": caption}
            _add(tar, f"{key}.{image_ending(sample.image)}", sample.image)
            _add(tar, f"{key}.txt", sample.caption)
            _add(tar, f"{key}.json", _json(about))
            rows.append(about)
    with replacing(parquet_path) as part:
        own = [pa.field(name, pa.string()) for name in ("key", "caption")]
        schema = pa.schema([*own, *(f for f in fields if f.name not in ("key", "caption"))])
        pq.write_table(pa.Table.from_pylist(rows, schema), part)
    shard = shard_of(number, tar_path.name, len(rows), file, samples)
    write_stats(stats_path, shard, layout.plan)
    return shard


def finished_tar(layout: Layout, number: int) -> Shard | None:
    """The shard as an earlier run has left it, if that is whole and of the same plan."""
    _, parquet_path, stats_path = _paths(layout, number)
    return read_stats(stats_path, layout, number) if parquet_path.is_file() else None


def image_ending(data: bytes) -> str:
    """The ending that fits an image's first bytes, `bin` where PIL does not know them."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=_formats()) as image:  # reads the header only
            return _ENDINGS.get(image.format or "", "bin")
    except Exception:  # PIL's readers raise nearly anything on damaged files
        return "bin"


@functools.cache
def _formats() -> tuple[str, ...]:
    from PIL import Image

    Image.init()
    return tuple(name for name in _ENDINGS if name in Image.OPEN and name != "MPO")


def _paths(layout: Layout, number: int) -> tuple[Path, Path, Path]:
    folder = Path(layout.folder)
    names = (f"{number:08d}.tar", f"{number:08d}.parquet", f"{number:08d}_stats.json")
    return folder / names[0], folder / names[1], folder / names[2]


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # no owner, time 0: the same bytes whoever writes it, and when
    member.size = len(data)
    member.mode = 0o644
    tar.addfile(member, io.BytesIO(data))


def _json(about: dict[str, Any]) -> bytes:
    """The sample's fields, over those that its `metadata` (the .json it came with) has."""
    own = {name: value for name, value in about.items() if name != "metadata"}
    try:
        came_with = json.loads(about.get("metadata") or "{}")
    except (ValueError, RecursionError):
        came_with = None
    if isinstance(came_with, dict):
        own = came_with | {name: value for name, value in own.items() if value is not None}
    text = json.dumps(_finite(own), ensure_ascii=False, default=str)
    return text.encode("utf-8", "replace")


def _finite(value: Any) -> Any:
    """`value` without NaN and infinities, which are no JSON."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
