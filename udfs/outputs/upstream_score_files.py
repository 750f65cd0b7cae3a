"""Scores in the form in which the paper's own code leaves them: Parquet files beside the tars.

For `<name>.tar` and each metric there is `<name>_<task>.parquet`: the fields of each sample's
.json, and `<task>_score`, the model's answer as text (Victorwz/MLM_Filter,
mlm_filter_scoring_datacomp_batch_inference_v2.py). Here a sample without scores has a null, and
rows are in the order of their keys.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from udfs.core.arrow_values import python_values
from udfs.core.atomic_files import replacing

TASKS = {
    "itm": "image_text_matching",
    "odf": "object_detail_fulfillment",
    "ctq": "caption_text_quality",
    "su": "semantic_understanding",
}
"""Upstream's names of the metrics."""

_MARK = b"mlm_filter"
_PAIR = ("uid", "key", "url", "caption")
"""Columns of the rows that stand in for a field of that name which the .json lacks."""


def write_score_files(rows: pa.Table, folder: str, stem: str) -> list[str]:
    """Write the four files of one tar, `stem` being its path below `folder` without `.tar`.

    `rows` has `metadata` (the .json as text, or null), `uid`, `key`, `url`, `caption`, `member`,
    and the four scores under the metrics' names (whole numbers 0..100, or null). Returns the paths.
    """
    columns = {name: python_values(rows[name].combine_chunks()) for name in rows.column_names}
    listed = [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
    listed.sort(key=lambda row: (row["member"] or "", row["key"] or "", row["uid"] or ""))
    about = [_about(row) for row in listed]
    names = list(dict.fromkeys(name for one in about for name in one))
    fields = {name: _array([one.get(name) for one in about]) for name in names}
    files = []
    for metric, task in TASKS.items():
        path = score_file(folder, stem, task)
        scores = [None if row[metric] is None else str(row[metric]) for row in listed]
        table = pa.table(fields | {f"{task}_score": pa.array(scores, pa.string())})
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            pq.write_table(table.replace_schema_metadata({_MARK: b"scores"}), part)
        files.append(str(path))
    return files


def tar_writer(folder: str) -> Callable[[pa.Table], pa.Table]:
    """A function for `applyInArrow` over the rows of a tar with its `stem`; returns one row."""

    def write(rows: pa.Table) -> pa.Table:
        stem = rows["stem"][0].as_py()
        files = write_score_files(rows.drop_columns(["stem"]), folder, stem)
        scored = rows.num_rows - rows["itm"].null_count
        told = {"stem": stem, "rows": rows.num_rows, "scored": scored, "files": files}
        return pa.Table.from_pylist([told])

    return write


def score_file(folder: str, stem: str, task: str) -> Path:
    """Where the scores of one tar and task are."""
    return Path(folder, f"{stem}_{task}.parquet")


def is_score_file(path: Path) -> bool:
    """Whether a file was written by `write_score_files`."""
    try:
        return _MARK in (pq.read_schema(path).metadata or {})
    except (OSError, pa.ArrowException):
        return False


def relative_stems(tars: Sequence[str]) -> dict[str, str]:
    """tar -> its path below the folder that all of them share, without `.tar`."""
    parts = [tar.split("/") for tar in tars]
    shared = 0
    while parts and all(len(p) > shared + 1 and p[shared] == parts[0][shared] for p in parts):
        shared += 1
    return {tar: "/".join(p[shared:])[: -len(".tar")] for tar, p in zip(tars, parts, strict=True)}


def _about(row: dict[str, Any]) -> dict[str, Any]:
    try:
        found = json.loads(row["metadata"] or "{}")
    except (ValueError, RecursionError):
        found = {}
    fields = dict(found) if isinstance(found, dict) else {}
    for name in _PAIR:
        if fields.get(name) is None:
            fields[name] = row[name]
    return fields


def _array(values: list[Any]) -> pa.Array:
    """A column; of values that have no type in common, their JSON."""
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError):
        return pa.array([None if v is None else json.dumps(v, ensure_ascii=True) for v in values])
