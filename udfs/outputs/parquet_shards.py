"""Parquet files that Hugging Face `datasets` loads with a column of images.

`data/train-00000-of-00012.parquet`: `image` (bytes and a name), `caption`, then the fields. The
file's own metadata say which column is an image, in the form that `datasets` itself gives them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from udfs.core.atomic_files import replacing
from udfs.outputs.shards import (
    Hashed,
    Layout,
    Sample,
    Samples,
    Shard,
    read_stats,
    shard_of,
    write_stats,
)
from udfs.outputs.tar_shards import image_ending

OWN = re.compile(r"\.?train-\d{5,}-of-\d{5,}\.(parquet|json)|\..+\.part")
"""Names of the files of such shards in `data/`, finished or not."""

GROUP_ROWS = 100
GROUP_BYTES = 64 * 1024 * 1024
"""A row group ends at either: readers hold a whole one in memory."""

_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_NAMES = {"float": "float32", "double": "float64"}


def write_parquet(layout: Layout, number: int, fields: pa.Schema, samples: Samples) -> Shard:
    """Write one shard."""
    path, stats_path = _paths(layout, number)
    path.parent.mkdir(parents=True, exist_ok=True)
    own = [pa.field("image", _IMAGE), pa.field("caption", pa.string())]
    about = {"huggingface": json.dumps({"info": {"features": features(fields)}})}
    schema = pa.schema([*own, *fields], about)
    rows = size = 0
    group: list[dict[str, Any]] = []
    with (
        replacing(path) as part,
        Hashed(part) as file,
        pq.ParquetWriter(pa.PythonFile(file, "w"), schema) as writer,
    ):
        for sample in samples:
            group.append(_row(sample))
            size += len(sample.image)
            rows += 1
            if len(group) >= GROUP_ROWS or size >= GROUP_BYTES:
                writer.write_table(pa.Table.from_pylist(group, schema))
                group, size = [], 0
        if group:
            writer.write_table(pa.Table.from_pylist(group, schema))
    shard = shard_of(number, f"data/{path.name}", rows, file, samples)
    write_stats(stats_path, shard, layout.plan)
    return shard


def finished_parquet(layout: Layout, number: int) -> Shard | None:
    """The shard as an earlier run has left it, if that is whole and of the same plan."""
    return read_stats(_paths(layout, number)[1], layout, number)


def features(fields: pa.Schema) -> dict[str, dict[str, str]]:
    """The columns as `datasets` describes them."""
    kinds = {"caption": "string"} | {f.name: _NAMES.get(str(f.type), str(f.type)) for f in fields}
    plain = {name: {"dtype": kind, "_type": "Value"} for name, kind in kinds.items()}
    return {"image": {"_type": "Image"}} | plain


def _row(sample: Sample) -> dict[str, Any]:
    name = f"{sample.index:08d}.{image_ending(sample.image)}"
    caption = sample.caption.decode("utf-8", "replace")
    return {"image": {"bytes": sample.image, "path": name}, "caption": caption, **sample.fields}


def _paths(layout: Layout, number: int) -> tuple[Path, Path]:
    stem = f"train-{number:05d}-of-{layout.shards:05d}"
    folder = Path(layout.folder, "data")
    return folder / f"{stem}.parquet", folder / f".{stem}.json"
