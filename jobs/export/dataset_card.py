"""The README.md of a folder of shards, from which Hugging Face `datasets` learns what the data are.

Without it, `datasets` takes `manifest.json` and the files beside the tars for data too.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from pyspark.sql import types as T

from udfs.core.atomic_files import atomic_write


def write_card(
    folder: Path,
    pattern: str,
    fields: T.StructType,
    rows: int,
    features: list[dict[str, Any]] | None = None,
) -> None:
    """Write README.md: `pattern` says which files have the data, `features` what is in tars."""
    files = [{"split": "train", "path": pattern}]
    head: dict[str, Any] = {"configs": [{"config_name": "default", "data_files": files}]}
    if features:
        head["dataset_info"] = {"config_name": "default", "features": features}
    names = ", ".join(f"`{name}`" for name in ("image", "caption", *fields.names))
    text = f"""---
{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---

{rows:,} image-caption pairs that `mlm-filter filter` has kept, in a shuffled order.

Columns: {names}.
"""
    with atomic_write(folder / "README.md") as part:
        part.write_text(text, encoding="utf-8")


def tar_features(fields: T.StructType, extensions: Iterable[str]) -> list[dict[str, Any]] | None:
    """The members of samples in tars, in the form of a card; None if `datasets` has to find out.

    By itself `datasets` looks at five samples: it refuses images of two formats among them, and
    leaves out what only later ones have. But names that are in the values, as those of maps and of
    the original .json, cannot be listed here.
    """
    members = [_feature(field.dataType) for field in fields]
    if "metadata" in fields.names or None in members:
        return None
    struct = [
        {"name": name} | (member or {}) for name, member in zip(fields.names, members, strict=True)
    ]
    struct += [{"name": name, "dtype": "string"} for name in ("key", "caption")]
    images = [{"name": extension, "dtype": "image"} for extension in extensions]
    texts = [{"name": name, "dtype": "string"} for name in ("txt", "__key__", "__url__")]
    return [*images, *texts, {"name": "json", "struct": struct}]


def _feature(data_type: T.DataType) -> dict[str, Any] | None:
    """What the JSON of a sample (udfs/outputs/field_columns.py) has for a type of Spark."""
    if isinstance(data_type, T.ArrayType):
        inner = _feature(data_type.elementType)
        return inner and {"list": inner}
    if isinstance(data_type, T.StructType):
        members = {field.name: _feature(field.dataType) for field in data_type}
        if None in members.values():
            return None
        return {"struct": [{"name": name} | (m or {}) for name, m in members.items()]}
    if isinstance(data_type, T.MapType):
        return None
    if isinstance(data_type, T.DecimalType):
        if data_type.scale == 0 and data_type.precision <= 18:
            return {"dtype": "int64"}
        return {"dtype": "float64" if data_type.precision <= 15 else "string"}
    for kind, dtype in ((T.BooleanType, "bool"), (T.IntegralType, "int64")):
        if isinstance(data_type, kind):
            return {"dtype": dtype}
    return {"dtype": "float64" if isinstance(data_type, T.FractionalType) else "string"}
