"""A table of captions, and what is counted of it: rows, lines that are no rows, doubtful texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from ...tables import delta

REPEATED_HEADER = "lines that repeat the header"
NOT_TEXT = "captions that are JSON objects or nested lists"

REASON, LINE = "_left_out_reason", "_left_out_line"
"""Columns of a table that is read: why a line is no row (null: it is one), and the line."""

_EXAMPLE_CHARACTERS = 100


@dataclass(frozen=True)
class CaptionTable:
    """The rows of caption files.

    Attributes:
        frame: the rows.
        cached: what `frame` is read from, to be taken from the cache in the end.
        caption: the name of their column of captions.
        rows: how many there are.
        notes: what to report about the captions.
        left_out: lines that are no rows: counts and the first line by reason.
        rejects: the same, line by line: `reason` and `example`.
    """

    frame: DataFrame
    cached: DataFrame
    caption: str
    rows: int
    notes: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, tuple[int, str]] = field(default_factory=dict)
    rejects: DataFrame | None = None


def different(names: Sequence[str]) -> list[str]:
    """`names`, made different in any case by numbers. Names in lower case are kept first."""
    taken: set[str] = set()
    new = list(names)
    for place in sorted(range(len(names)), key=lambda place: names[place] != names[place].lower()):
        new[place] = delta.free_name(names[place], taken)
        taken.add(new[place].lower())
    return new


def plain_captions(parse: Callable[[T.DataType | None], DataFrame], caption: str) -> DataFrame:
    """What `parse` (type of the captions, None: as Spark infers it) reads from JSON.

    Where some captions are texts and others lists, Spark infers texts and makes texts of the lists.
    They become lists of texts here, and other values that Spark would make texts of a reason.
    """
    frame = parse(None)
    column = F.col(delta.quoted(caption))
    kind = frame.schema[caption].dataType
    if isinstance(kind, T.StringType):
        nested = _looks_nested(column)
    elif isinstance(kind, T.ArrayType) and isinstance(kind.elementType, T.StringType):
        nested = F.exists(column, _looks_nested)
    else:
        return frame
    if frame.where(nested).isEmpty():
        return frame
    texts_only, frame = frame, parse(T.VariantType())
    form = F.schema_of_variant(column)
    if frame.where(form.rlike("^(OBJECT|ARRAY)")).isEmpty():
        return texts_only
    reason = F.when(form.rlike("^(OBJECT|ARRAY<(OBJECT|ARRAY|VARIANT))"), NOT_TEXT)
    text = F.try_variant_get(column, "$", "string")
    if not frame.where(form.startswith("ARRAY")).isEmpty():
        texts = F.when(form.startswith("ARRAY"), F.try_variant_get(column, "$", "array<string>"))
        text = F.coalesce(texts, F.array(text))
    return frame.withColumns(
        {
            REASON: F.coalesce(F.col(REASON), reason),
            LINE: F.coalesce(F.col(LINE), F.when(reason.isNotNull(), F.to_json(column))),
            caption: F.when(column.isNotNull() & (form != "VOID"), text),
        }
    )


def _looks_nested(text: Column) -> Column:
    return text.rlike(r"^[\[{]")


def counted(frame: DataFrame, caption: str, headers: int = 0, quoted: bool = True) -> CaptionTable:
    """Count `frame`, which has the columns REASON and LINE if lines of it may be no rows.

    `headers` are lines that repeat the header because each file has one. Not `quoted`: quotation
    marks around captions are part of them, which is told.
    """
    if REASON not in frame.columns:
        frame = frame.withColumns({name: F.lit(None).cast("string") for name in (REASON, LINE)})
    column = F.col(delta.quoted(caption))
    kind = frame.schema[caption].dataType
    if isinstance(kind, T.ArrayType) and isinstance(kind.elementType, T.StringType):
        column = F.array_join(column, "\n")
    elif not isinstance(kind, T.StringType):
        column = F.lit(None).cast("string")
    frame = frame.persist()  # it is read again and again, and text takes long to parse
    groups = frame.groupBy(REASON).agg(
        F.count("*").alias("rows"),
        F.first(LINE).alias("line"),
        F.count_if(F.contains(column, F.lit("\ufffd"))).alias("replaced"),
        F.count_if(column.rlike('(?s)^".*"$')).alias("in_quotes"),
    )
    found = {row[REASON]: row for row in groups.collect()}
    rows = found.pop(None, None)
    left_out = {reason: (int(row["rows"]), str(row["line"])) for reason, row in found.items()}
    bad = frame.where(F.col(REASON).isNotNull())
    if REPEATED_HEADER in left_out:
        count, line = left_out.pop(REPEATED_HEADER)
        again = bad.where(F.col(REASON) == REPEATED_HEADER).limit(max(0, count - headers))
        bad = bad.where(F.col(REASON) != REPEATED_HEADER)
        if count > headers:
            left_out[REPEATED_HEADER] = count - headers, line
            bad = bad.union(again)
    notes: dict[str, Any] = {}
    if rows and rows["replaced"]:
        notes["captions_with_replaced_characters"] = int(rows["replaced"])
    if rows and rows["in_quotes"] and not quoted:
        notes["captions_in_quotation_marks"] = int(rows["in_quotes"])
    example = F.substring(LINE, 1, _EXAMPLE_CHARACTERS).alias("example")
    return CaptionTable(
        frame=frame.where(F.col(REASON).isNull()).drop(REASON, LINE),
        cached=frame,
        caption=caption,
        rows=int(rows["rows"]) if rows else 0,
        notes=notes,
        left_out=left_out,
        rejects=bad.select(F.col(REASON).alias("reason"), example) if left_out else None,
    )
