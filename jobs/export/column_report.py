"""Which columns an export cannot write as they are: they are named on stderr and in the summary."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pyspark.sql import types as T

from ..core import job_runner
from .settings import ExportConfig

REPLACED = "the selection's column of this name is written"


def overshadowed(config: ExportConfig, columns: Collection[str]) -> dict[str, str]:
    """Those of the columns of a pairs table whose name another one gets (`--caption-column text`
    of a table with `caption`): name in lower case -> reason."""
    image = config.image_path_column or config.image_column
    roles = {"uid": config.uid_column, "caption": config.caption_column}
    roles["image_path" if config.image_path_column else "image"] = image
    found = {name.lower() for name in columns}
    return {
        role: f"{column} is written under this name"
        for role, column in roles.items()
        if role in found and column.lower() != role
    }


def reserved(config: ExportConfig, columns: Collection[str]) -> dict[str, str]:
    """The names, in lower case, of the columns of a pairs table that are not fields in shards, and
    the reason; it is an empty text where nothing is lost."""
    names = {"caption": "", "read_error": "it is about images that cannot be read"}
    if config.image_path_column:
        names |= {"image_path": "", "image": "--image-path-column is read instead"}
    else:
        names |= {"image": "", config.image_column.lower(): ""}
    return names | overshadowed(config, columns)


def maps_as_lists(fields: T.StructType) -> dict[str, str]:
    """The columns with maps, which are lists in Parquet for `datasets`: name -> what happens."""
    types = {field.name: field.dataType.simpleString() for field in fields}
    return {n: f"{t} is written with lists of key, value" for n, t in types.items() if "map<" in t}


def other_types(read: T.StructType, written: T.StructType) -> dict[str, str]:
    """What has become of columns, in the same order, that have other names or types in a table."""
    changes = {}
    for old, new in zip(read, written, strict=False):
        before, after = old.dataType.simpleString(), new.dataType.simpleString()
        if (old.name, before) != (new.name, after):
            name = "" if new.name == old.name else f"{new.name}, "
            changes[old.name] = f"{before} is written as {name}{after}"
    return changes


def report(left_out: Mapping[str, str], changed: Mapping[str, str]) -> dict[str, Any]:
    """Print a line for each column, and return them for the summary."""
    for name, reason in left_out.items():
        job_runner.say(f"left out: column {name} ({reason})")
    for name, change in changed.items():
        job_runner.say(f"column {name}: {change}")
    return {"columns_left_out": dict(left_out), "columns_changed": dict(changed)}
