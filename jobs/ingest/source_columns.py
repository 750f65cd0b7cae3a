"""A source's rows, and the names that its columns get in a pairs table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from ..tables import delta as delta_tables
from ..tables.external_table import find_column
from ..tables.uid_origin import Origin

RESERVED = ("uid", "image", "caption", "source_path", "read_error")
"""Names with a meaning in a pairs table; a source's own columns of these names are renamed."""

DERIVED = ("image_sha", "caption_sha")
"""Computed columns of a pairs table; a source's own columns of these names are dropped."""

LEFT_OUT = "_left_out"
"""The column of a source's frame that says why a row is left out: `reason`, in words, and
`example`, a name that tells the user which it is. It is null in rows that are pairs. Rows with a
`total` count those without one, by reason; there are so few that the driver can collect them."""

LEFT_OUT_TYPE = "struct<reason: string, example: string, total: long>"


@dataclass(frozen=True)
class Columns:
    """The names of the source's columns; None: the usual name, if there is such a column."""

    image: str = "image"
    caption: str = "caption"
    uid: str | None = None
    path: str | None = None


@dataclass(frozen=True)
class Source:
    """The rows of a source of pairs, and what is known about it.

    Attributes:
        frame: the rows.
        rows: how many there are, if that is known without reading them.
        fill_uid: null uids are filled in, since only some data sets of this kind have uids.
        notes: what to report about the source, for the line of JSON.
        left_out: what has been left out of `frame` already: counts and an example by reason. What
            is found out only while `frame` is read is in its column LEFT_OUT, if it has one.
        rejects: the same, row by row: `reason` and `example`.
        uids: whose the uids of `frame` are, if more is known of it than that it has some.
        cached: frames to be taken from Spark's cache in the end.
    """

    frame: DataFrame
    rows: int | None = None
    fill_uid: bool = False
    notes: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, tuple[int, str]] = field(default_factory=dict)
    rejects: DataFrame | None = None
    uids: Origin | None = None
    cached: Sequence[DataFrame] = ()


def uid_column(frame: DataFrame, wanted: str | None, source_name: str) -> str | None:
    """The column of keys: the wanted one, else `uid` if there is one, in any case."""
    if wanted or any(name.lower() == "uid" for name in frame.columns):
        return find_column(frame, wanted or "uid", "--uid-column", source_name)
    return None


def rename_columns(frame: DataFrame, roles: Mapping[str, str | None]) -> DataFrame:
    """The columns in `roles` (new name -> old name or None) under their new names, then all others.

    Other columns whose name has a meaning in a pairs table become `<name>_input`; so does
    `_metadata`, Spark's own name of what it knows of a row's file.
    """
    taken = {name.lower() for name in (*frame.columns, *RESERVED)}
    columns = [F.col(delta_tables.quoted(old)).alias(new) for new, old in roles.items() if old]
    for name in frame.columns:
        new = name
        if name in roles.values() or name.lower() in DERIVED:
            continue
        if name.lower() in (*RESERVED, "_metadata"):
            new = delta_tables.free_name(f"{name}_input", taken)
            taken.add(new.lower())
        columns.append(F.col(delta_tables.quoted(name)).alias(new))
    return frame.select(*columns)
