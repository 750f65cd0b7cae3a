"""`manifest.json`, which says of a folder of shards what is in them: files, columns, whose uids.

`export` writes it; `ingest` reads it, and so gives the columns in a tar's JSON their types back.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from pyspark.sql import types as T

from udfs.core.atomic_files import atomic_write
from udfs.inputs.image_roots import read_regular_file
from udfs.outputs.shards import Shard

from .uid_origin import Origin

FILE_NAME = "manifest.json"
_MOST_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Manifest:
    """What is known of the samples in shards.

    Attributes:
        columns: the fields of a sample, beside its image and caption.
        uids: whose their uids are; None: unknown.
    """

    columns: T.StructType
    uids: Origin | None = None

    def origin_of(self, uid_column: str | None) -> Origin | None:
        """Whose the uids in a column are (None: the usual one), as far as this knows."""
        return self.uids if (uid_column or "uid").lower() == "uid" else None


def write(
    folder: Path,
    header: dict[str, Any],
    content: Manifest,
    shards: Iterable[Shard],
    complete: bool,
) -> None:
    """Write the file: `header`, then what is in the samples, then the list of shards."""
    listed = [
        {"file": s.file, "rows": s.rows, "bytes": s.bytes, "sha256": s.sha256} for s in shards
    ]
    known = {"uids": content.uids, "columns": content.columns.jsonValue()["fields"]}
    text = json.dumps({"complete": complete, **header, **known, "shards": listed}, indent=1)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / FILE_NAME) as part:
        part.write_text(text + "\n", encoding="utf-8")


def of_files(files: Sequence[str], shard_format: str) -> Manifest | None:
    """What is known of shards on this machine: None unless an export has written all of them."""
    common = os.path.commonpath([os.path.dirname(file) for file in files])
    for folder in (common, os.path.dirname(common)):
        try:
            path = os.path.join(folder, FILE_NAME)
            content = json.loads(read_regular_file(path, most=_MOST_BYTES))
            listed = {os.path.join(folder, shard["file"]) for shard in content["shards"]}
            if content["format"] == shard_format and listed.issuperset(files):
                columns = T.StructType.fromJson({"fields": content["columns"]})
                uids = content["uids"] if content["uids"] in get_args(Origin) else None
                return Manifest(columns, cast("Origin | None", uids))
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            continue
    return None
