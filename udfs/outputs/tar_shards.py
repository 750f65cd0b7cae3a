"""Writes WebDataset shards in the layout of img2dataset; the same samples give the same bytes.

Each shard is three files: `00000000.tar` with `<key>.jpg`, `.txt` and `.json` for each sample;
`00000000.parquet` with a row for each sample; and `00000000_stats.json`, which is written last and
marks the shard as complete. Images have the extension of their format.
"""

from __future__ import annotations

import io
import json
import math
import re
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from udfs.core.atomic_files import atomic_write
from udfs.outputs.field_columns import json_row
from udfs.outputs.shards import (
    HashingFile,
    Layout,
    Samples,
    Shard,
    read_stats,
    shard_of,
    write_stats,
)

RESERVED = ("key", "caption")
"""Fields that every sample has, in place of columns of these names."""

FILE_NAMES = re.compile(r"\d{8}(\.tar|\.parquet|_stats\.json)|\..+\.part")
"""Matches the names of these shards' files, finished or not."""


def write_tar(layout: Layout, number: int, fields: pa.Schema, samples: Samples) -> Shard:
    """Write one shard. The key of a sample is the shard's number and its index in the shard."""
    tar_path, parquet_path, stats_path = _paths(layout, number)
    digits = max(4, len(str(layout.shard_rows - 1)))
    pairs: list[dict[str, str]] = []
    rows: list[pa.RecordBatch] = []
    with (
        atomic_write(tar_path) as part,
        HashingFile(part) as file,
        # as a stream: a mounted store may not support seeking
        tarfile.open(  # type: ignore[call-overload]  # a stream only needs `write`
            fileobj=file, mode="w|", format=tarfile.USTAR_FORMAT
        ) as tar,
    ):
        for sample in samples:
            key = f"{number:08d}{sample.index:0{digits}d}"
            caption = sample.caption.decode("utf-8", "replace")
            _add(tar, f"{key}.{sample.extension}", sample.image)
            _add(tar, f"{key}.txt", sample.caption)
            pair = {"key": key, "caption": caption}
            _add(tar, f"{key}.json", _json(json_row(sample.fields) | pair))
            pairs.append(pair)
            rows.append(sample.fields)
    with atomic_write(parquet_path) as part:
        pq.write_table(_table(pairs, rows, fields), part)
    shard = shard_of(number, tar_path.name, len(rows), file, samples)
    write_stats(stats_path, shard, layout.plan)
    return shard


def finished_tar(layout: Layout, number: int) -> Shard | None:
    """The shard from an earlier run, if it is complete and of the same plan."""
    _, parquet_path, stats_path = _paths(layout, number)
    return read_stats(stats_path, layout, number) if parquet_path.is_file() else None


def _paths(layout: Layout, number: int) -> tuple[Path, Path, Path]:
    folder = Path(layout.folder)
    names = (f"{number:08d}.tar", f"{number:08d}.parquet", f"{number:08d}_stats.json")
    return folder / names[0], folder / names[1], folder / names[2]


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # no owner and time 0: the same bytes every time
    member.size = len(data)
    member.mode = 0o644
    tar.addfile(member, io.BytesIO(data))


def _table(pairs: list[dict[str, str]], rows: list[pa.RecordBatch], fields: pa.Schema) -> pa.Table:
    schema = pa.schema([(name, pa.string()) for name in RESERVED])
    table = pa.Table.from_batches(rows, fields).combine_chunks()
    table = table.drop_columns([name for name in RESERVED if name in fields.names])
    columns = pa.Table.from_pylist(pairs, schema).columns + table.columns
    return pa.Table.from_arrays(columns, schema=pa.schema([*schema, *table.schema]))


def _json(row: dict[str, Any]) -> bytes:
    """The sample's fields as JSON; they override those in its `metadata` (its original .json).

    `metadata` that is no JSON object is a field like any other.
    """
    original = _json_object(row.get("metadata"))
    if original is not None:
        fields = {name: value for name, value in row.items() if name != "metadata"}
        row = original | {name: value for name, value in fields.items() if value is not None}
    text = json.dumps(_finite(row), ensure_ascii=False, default=str)
    return text.encode("utf-8", "replace")


def _json_object(text: Any) -> dict[str, Any] | None:
    """The object in a text, or None; an empty one for no text."""
    try:
        value = json.loads(text) if text else {}
    except (ValueError, RecursionError, TypeError):
        return None
    return value if isinstance(value, dict) else None


def _finite(value: Any) -> Any:
    """`value` with None in place of NaN and infinities, which JSON does not have."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
