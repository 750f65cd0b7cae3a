"""Writes Parquet files that Hugging Face `datasets` loads with a column of images.

`data/train-00000-of-00012.parquet`: `image` (bytes and a name), `caption`, then the fields. The
file's metadata declare `image` as a column of images, in the form that `datasets` itself writes.
A map is a list of `key` and `value`, since `datasets` cannot read maps.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from udfs.core.atomic_files import atomic_write
from udfs.outputs.field_columns import without_maps
from udfs.outputs.shards import (
    HashingFile,
    Layout,
    Sample,
    Samples,
    Shard,
    read_stats,
    shard_of,
    write_stats,
)

FILE_NAMES = re.compile(r"\.?train-\d{5,}-of-\d{5,}\.(parquet|json)|\..+\.part")
"""Matches the names of these shards' files in `data/`, finished or not."""

GROUP_ROWS = 100
GROUP_BYTES = 64 * 1024 * 1024
"""A row group ends at whichever comes first: readers load a whole one into memory."""

_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_DTYPES = {"float": "float32", "double": "float64"}
_PLAIN = re.compile(r"float|double|bool|u?int\d+|(large_)?string")


def write_parquet(layout: Layout, number: int, fields: pa.Schema, samples: Samples) -> Shard:
    """Write one shard."""
    path, stats_path = _paths(layout, number)
    path.parent.mkdir(parents=True, exist_ok=True)
    pair = [pa.field("image", _IMAGE), pa.field("caption", pa.string())]
    metadata = {"huggingface": json.dumps({"info": {"features": features(fields)}})}
    fields = pa.schema([field.with_type(without_maps(field.type)) for field in fields])
    schema = pa.schema([*pair, *fields], metadata)
    rows = size = 0
    group: list[Sample] = []
    with (
        atomic_write(path) as part,
        HashingFile(part) as file,
        pq.ParquetWriter(pa.PythonFile(file, "w"), schema) as writer,
    ):
        for sample in samples:
            group.append(sample)
            size += len(sample.image)
            rows += 1
            if len(group) >= GROUP_ROWS or size >= GROUP_BYTES:
                writer.write_table(_table(group, schema))
                group, size = [], 0
        if group:
            writer.write_table(_table(group, schema))
    shard = shard_of(number, f"data/{path.name}", rows, file, samples)
    write_stats(stats_path, shard, layout.plan)
    return shard


def finished_parquet(layout: Layout, number: int) -> Shard | None:
    """The shard from an earlier run, if it is complete and of the same plan."""
    return read_stats(_paths(layout, number)[1], layout, number)


def features(fields: pa.Schema) -> dict[str, dict[str, str]]:
    """The columns as `datasets` describes them; it finds out the types of those not listed."""
    dtypes = {"caption": "string"}
    types = {field.name: str(field.type) for field in fields}
    dtypes |= {n: _DTYPES.get(kind, kind) for n, kind in types.items() if _PLAIN.fullmatch(kind)}
    values = {name: {"dtype": dtype, "_type": "Value"} for name, dtype in dtypes.items()}
    return {"image": {"_type": "Image"}} | values


def _table(samples: list[Sample], schema: pa.Schema) -> pa.Table:
    images = [{"bytes": s.image, "path": f"{s.index:08d}.{s.extension}"} for s in samples]
    captions = [sample.caption.decode("utf-8", "replace") for sample in samples]
    fields = pa.Table.from_batches([sample.fields for sample in samples]).combine_chunks()
    columns = [pa.array(images, _IMAGE), pa.array(captions, pa.string()), *fields.columns]
    typed = [column.cast(field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(typed, schema=schema)


def _paths(layout: Layout, number: int) -> tuple[Path, Path]:
    stem = f"train-{number:05d}-of-{layout.shards:05d}"
    folder = Path(layout.folder, "data")
    return folder / f"{stem}.parquet", folder / f".{stem}.json"
