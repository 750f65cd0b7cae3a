"""The pairs that a report shows: those at the ends of each metric and at each rule's line.

Which they are is decided by the signal's value, then by xxhash64(uid): the same in every run and
for any partitioning. Their thumbnails are made on executors; the driver gets a few KB for each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from udfs.core.metrics import METRICS
from udfs.report.thumbnails import MAX_PICTURES, Gallery, Picture, Strip, with_thumbnails

from ..rules.table_statistics import is_scored
from ..tables.delta import quoted
from ..tables.pairs import PAIRS_KEYS
from ..tables.scores import KEYS
from .figures import value_of
from .rule_boundaries import Line

ENDS = (*METRICS, "clip_score")
"""Signals whose best and worst pairs are shown; of others nobody can say which end is the best."""

_CAPTION_BYTES = 16_384  # more is never shown
_TOLD = ("keep", "first_failed_rule", "reason")


@dataclass(frozen=True)
class Wanted:
    """The first rows by a signal among those that meet a condition."""

    title: str
    signal: str
    ascending: bool
    rule: str | None = None
    passing: bool = True

    def condition(self) -> Column:
        """Scored rows with a value, on the wanted side of the rule."""
        meant = is_scored() & value_of(self.signal).isNotNull()
        if self.rule is None:
            return meant
        passed = F.coalesce(F.col("rules")[self.rule], F.lit(False))
        return meant & (passed if self.passing else ~passed)


def plan(
    lines: Sequence[Line], signals: Iterable[str], each: int
) -> tuple[list[tuple[Gallery, list[Wanted]]], int]:
    """What to show, as galleries and their strips to be, and how many pictures a strip may have.

    No more than MAX_PICTURES in all: strips become shorter, down to two, then the last rules go.
    """
    ends = [name for name in signals if name in ENDS]
    count = len(lines) + len(ends)
    each = max(min(each, 2), min(each, MAX_PICTURES // (2 * max(count, 1))))
    made: list[tuple[Gallery, list[Wanted]]] = []
    for line in lines[: MAX_PICTURES // (2 * each) - len(ends)]:
        up = line.ascending
        note = "" if line.exact else f"Decided by several signals; in the order of {line.signal}."
        strips = [
            Wanted("last to pass", line.signal, up, line.rule),
            Wanted("first to fail", line.signal, not up, line.rule, passing=False),
        ]
        made.append((Gallery(line.rule, line.signal, (), note, kind="line"), strips))
    for name in ends:
        made.append(
            (Gallery(name, name, ()), [Wanted("best", name, False), Wanted("worst", name, True)])
        )
    return made, each


def choose(selection: DataFrame, wanted: Sequence[Wanted], each: int) -> list[list[Row]]:
    """The rows of each strip in their order, from one Spark job; without images."""
    if not wanted:
        return []
    scores = [name for name in ENDS if name in selection.columns]
    told = [F.col(quoted(name)) for name in dict.fromkeys((*KEYS, *_TOLD, *scores))]
    tie = [F.xxhash64("uid"), *map(F.col, KEYS)]
    strips = []
    for number, one in enumerate(wanted):
        value = value_of(one.signal)
        first = selection.where(one.condition()).orderBy(
            value.asc() if one.ascending else value.desc(), *tie
        )
        added = (
            F.lit(number).alias("__strip"),
            value.alias("__value"),
            F.xxhash64("uid").alias("__tie"),
        )
        strips.append(first.limit(each).select(*told, *added))
    found: list[list[Row]] = [[] for _ in wanted]
    for row in reduce(DataFrame.unionByName, strips).collect():  # in no order
        found[row["__strip"]].append(row)
    for one, rows in zip(wanted, found, strict=True):
        sign = 1 if one.ascending else -1
        rows.sort(key=lambda r: (sign * r["__value"], r["__tie"], *map(str, (r[k] for k in KEYS))))
    return found


def fetch(keyed: DataFrame, image: str, rows: Iterable[Row]) -> dict[tuple[str, ...], Row]:
    """By key: `caption` (the bytes of its beginning), `thumbnail` and `problem` of the rows' pairs.

    `keyed` is the pairs table with keys (jobs/tables/pairs.py), `image` its column `image` or
    `image_path`. Only rows of the uids wanted are read.
    """
    keys = {tuple(row[name] for name in PAIRS_KEYS) for row in rows}
    uids = sorted({key[0] for key in keys if key[0] is not None})
    if not uids:
        return {}
    caption = F.substring(F.col("caption").cast("binary"), 1, _CAPTION_BYTES)  # maybe no UTF-8
    needed = keyed.where(F.col("uid").isin(uids)).select(
        *PAIRS_KEYS, caption.alias("caption"), image
    )
    schema = (
        "uid string, image_sha string, caption_sha string, caption binary,"
        " thumbnail binary, problem string"
    )
    found = needed.mapInArrow(with_thumbnails, schema).collect()
    return {key: row for row in found if (key := tuple(row[n] for n in PAIRS_KEYS)) in keys}


def picture(row: Row, found: Row | None) -> Picture:
    """One pair of a strip, with what `fetch` found of it."""
    return Picture(
        uid=row["uid"] or "",
        value=row["__value"],
        caption=found["caption"] if found else None,
        keep=bool(row["keep"]),
        thumbnail=found["thumbnail"] if found else None,
        problem=found["problem"] if found else "the pair is not in the pairs table (any more)",
        scores={name: row[name] for name in ENDS if name in row and row[name] is not None},
        first_failed_rule=row["first_failed_rule"],
        reason=row["reason"],
    )


def collect(
    selection: DataFrame,
    keyed: DataFrame,
    image: str,
    lines: Sequence[Line],
    signals: Sequence[str],
    each: int,
) -> list[Gallery]:
    """All pictures of a report. Runs two Spark jobs."""
    planned, each = plan(lines, signals, each)
    wanted = [strip for _, strips in planned for strip in strips]
    chosen = choose(selection, wanted, each)
    found = fetch(keyed, image, (row for rows in chosen for row in rows))
    made = []
    left = iter(chosen)
    for gallery, strips in planned:
        shown = tuple(
            Strip(
                strip.title,
                tuple(
                    picture(row, found.get(tuple(row[name] for name in PAIRS_KEYS)))
                    for row in next(left)
                ),
            )
            for strip in strips
        )
        made.append(Gallery(gallery.title, gallery.signal, shown, gallery.note, gallery.kind))
    return made
