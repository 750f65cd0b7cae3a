"""Writes scores in the format of the paper's own code: Parquet files beside the tars.

For `<name>.tar` and each metric there is `<name>_<task>.parquet`: the fields of each sample's
.json, and `<task>_score`, the model's answer as text (Victorwz/MLM_Filter,
mlm_filter_scoring_datacomp_batch_inference_v2.py). Here a sample without scores has a null, and
rows are sorted by key.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from udfs.core.arrow_values import python_values
from udfs.core.atomic_files import atomic_write

TASKS = {
    "itm": "image_text_matching",
    "odf": "object_detail_fulfillment",
    "ctq": "caption_text_quality",
    "su": "semantic_understanding",
}
"""Upstream's names of the metrics."""

_METADATA_KEY = b"mlm_filter"
_FALLBACK_COLUMNS = ("uid", "key", "url", "caption")
"""Columns that replace a field of the same name if the .json lacks it."""


def write_score_files(rows: pa.Table, folder: str, stem: str) -> list[str]:
    """Write the four files of one tar; `stem` is its path below `folder` without `.tar`.

    `rows` has `metadata` (the .json as text, or null), `uid`, `key`, `url`, `caption`, `member`,
    and the four scores under the metrics' names (integers 0..100, or null). Returns the paths.
    """
    columns = {name: python_values(rows[name].combine_chunks()) for name in rows.column_names}
    samples = [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
    samples.sort(key=lambda row: (row["member"] or "", row["key"] or "", row["uid"] or ""))
    json_fields = [_json_fields(row) for row in samples]
    names = list(dict.fromkeys(name for fields in json_fields for name in fields))
    arrays = {name: _array([fields.get(name) for fields in json_fields]) for name in names}
    files = []
    for metric, task in TASKS.items():
        path = score_file(folder, stem, task)
        scores = [None if row[metric] is None else str(row[metric]) for row in samples]
        table = pa.table(arrays | {f"{task}_score": pa.array(scores, pa.string())})
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as part:
            pq.write_table(table.replace_schema_metadata({_METADATA_KEY: b"scores"}), part)
        files.append(str(path))
    return files


def tar_writer(folder: str) -> Callable[[pa.Table], pa.Table]:
    """A function for `applyInArrow` over the rows of one tar, with its `stem`; returns one row."""

    def write(rows: pa.Table) -> pa.Table:
        stem = rows["stem"][0].as_py()
        files = write_score_files(rows.drop_columns(["stem"]), folder, stem)
        scored = rows.num_rows - rows["itm"].null_count
        summary = {"stem": stem, "rows": rows.num_rows, "scored": scored, "files": files}
        return pa.Table.from_pylist([summary])

    return write


def score_file(folder: str, stem: str, task: str) -> Path:
    """The path of the score file of one tar and task."""
    return Path(folder, f"{stem}_{task}.parquet")


def is_score_file(path: Path) -> bool:
    """Whether a file was written by `write_score_files`."""
    try:
        return _METADATA_KEY in (pq.read_schema(path).metadata or {})
    except (OSError, pa.ArrowException):
        return False


def relative_stems(tars: Sequence[str]) -> dict[str, str]:
    """tar -> its path below the folder that all tars share, without `.tar`."""
    parts = [tar.split("/") for tar in tars]
    shared = 0
    while parts and all(len(p) > shared + 1 and p[shared] == parts[0][shared] for p in parts):
        shared += 1
    return {tar: "/".join(p[shared:])[: -len(".tar")] for tar, p in zip(tars, parts, strict=True)}


def _json_fields(row: dict[str, Any]) -> dict[str, Any]:
    try:
        metadata = json.loads(row["metadata"] or "{}")
    except (ValueError, RecursionError):
        metadata = {}
    fields = dict(metadata) if isinstance(metadata, dict) else {}
    for name in _FALLBACK_COLUMNS:
        if fields.get(name) is None:
            fields[name] = row[name]
    return fields


def _array(values: list[Any]) -> pa.Array:
    """The values as an array; as JSON if they have no common type."""
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError):
        return pa.array([None if v is None else json.dumps(v, ensure_ascii=True) for v in values])
