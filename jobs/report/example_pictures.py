"""Chooses the pairs that a report shows: the best and worst by each metric, and those at each
rule's boundary.

They are ordered by the signal's value, then by xxhash64(uid), so they are the same in every run and
for any partitioning. Executors make their thumbnails; the driver gets a few KB for each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from udfs.core.metrics import METRICS
from udfs.inputs.image_roots import ImageRoots
from udfs.report.thumbnails import MAX_PICTURES, Gallery, Picture, Strip, with_thumbnails

from ..rules.table_statistics import is_scored
from ..tables.delta import quoted
from ..tables.pairs import PAIRS_KEYS
from ..tables.scores import KEYS
from .figures import value_of
from .rule_boundaries import RuleBoundary

RANKED_SIGNALS = (*METRICS, "clip_score")
"""Signals whose best and worst pairs are shown; for others it is unknown which end is the best."""

_CAPTION_BYTES = 16_384  # the page never shows more
_VERDICT_COLUMNS = ("keep", "first_failed_rule", "reason")


@dataclass(frozen=True)
class StripPlan:
    """What a strip of pictures will show: the first rows, by a signal, that meet a condition."""

    title: str
    signal: str
    ascending: bool
    rule: str | None = None
    passing: bool = True

    def condition(self) -> Column:
        """Scored rows with a value; given a rule, only those that pass it, or that fail it."""
        has_value = is_scored() & value_of(self.signal).isNotNull()
        if self.rule is None:
            return has_value
        passed = F.coalesce(F.col("rules")[self.rule], F.lit(False))
        return has_value & (passed if self.passing else ~passed)


def plan(
    boundaries: Sequence[RuleBoundary], signals: Iterable[str], each: int
) -> tuple[list[tuple[Gallery, list[StripPlan]]], int]:
    """Which galleries to show, with the plans of their strips; and how many pictures per strip.

    To stay within MAX_PICTURES, strips become shorter, down to two pictures; then the last rules
    are left out.
    """
    ranked = [name for name in signals if name in RANKED_SIGNALS]
    count = len(boundaries) + len(ranked)
    each = max(min(each, 2), min(each, MAX_PICTURES // (2 * max(count, 1))))
    plans: list[tuple[Gallery, list[StripPlan]]] = []
    for boundary in boundaries[: MAX_PICTURES // (2 * each) - len(ranked)]:
        rule, signal, ascending = boundary.rule, boundary.signal, boundary.ascending
        note = "" if boundary.exact else f"Several signals decide; ordered by {signal}."
        strips = [
            StripPlan("last to pass", signal, ascending, rule),
            StripPlan("first to fail", signal, not ascending, rule, passing=False),
        ]
        plans.append((Gallery(rule, signal, (), note, kind="line"), strips))
    for name in ranked:
        strips = [
            StripPlan("best", name, ascending=False),
            StripPlan("worst", name, ascending=True),
        ]
        plans.append((Gallery(name, name, ()), strips))
    return plans, each


def choose(selection: DataFrame, strips: Sequence[StripPlan], each: int) -> list[list[Row]]:
    """The rows of each strip, in order, from one Spark job; without images."""
    if not strips:
        return []
    scores = [name for name in RANKED_SIGNALS if name in selection.columns]
    columns = [F.col(quoted(name)) for name in dict.fromkeys((*KEYS, *_VERDICT_COLUMNS, *scores))]
    tie_order = [F.xxhash64("uid"), *map(F.col, KEYS)]
    frames = []
    for number, strip in enumerate(strips):
        value = value_of(strip.signal)
        ordered = selection.where(strip.condition()).orderBy(
            value.asc() if strip.ascending else value.desc(), *tie_order
        )
        added = (
            F.lit(number).alias("__strip"),
            value.alias("__value"),
            F.xxhash64("uid").alias("__hash"),
        )
        frames.append(ordered.limit(each).select(*columns, *added))
    chosen: list[list[Row]] = [[] for _ in strips]
    for row in reduce(DataFrame.unionByName, frames).collect():  # in no particular order
        chosen[row["__strip"]].append(row)
    for strip, rows in zip(strips, chosen, strict=True):
        sign = 1 if strip.ascending else -1
        rows.sort(key=lambda r: (sign * r["__value"], r["__hash"], *map(str, (r[k] for k in KEYS))))
    return chosen


def fetch(
    keyed: DataFrame, roots: ImageRoots | None, rows: Iterable[Row]
) -> dict[tuple[str, ...], Row]:
    """Key -> `caption` (its first bytes), `thumbnail` and `problem`, for the pairs of the rows.

    `keyed` is the pairs table with keys (jobs/tables/pairs.py); with `roots` it has paths of images
    below them. Reads only rows with the uids of the rows.
    """
    keys = {tuple(row[name] for name in PAIRS_KEYS) for row in rows}
    uids = sorted({key[0] for key in keys if key[0] is not None})
    if not uids:
        return {}
    caption = F.substring(
        F.col("caption").cast("binary"), 1, _CAPTION_BYTES
    )  # may be invalid UTF-8
    needed = keyed.where(F.col("uid").isin(uids)).select(
        *PAIRS_KEYS, caption.alias("caption"), "image_path" if roots else "image"
    )
    schema = (
        "uid string, image_sha string, caption_sha string, caption binary,"
        " thumbnail binary, problem string"
    )
    fetched = needed.mapInArrow(partial(with_thumbnails, roots=roots), schema).collect()
    return {key: row for row in fetched if (key := tuple(row[n] for n in PAIRS_KEYS)) in keys}


def picture(row: Row, fetched: Row | None) -> Picture:
    """One pair of a strip, with what `fetch` returned for it."""
    return Picture(
        uid=row["uid"] or "",
        value=row["__value"],
        caption=fetched["caption"] if fetched else None,
        keep=bool(row["keep"]),
        thumbnail=fetched["thumbnail"] if fetched else None,
        problem=fetched["problem"]
        if fetched
        else "the pair is not or no longer in the pairs table",
        scores={
            name: row[name] for name in RANKED_SIGNALS if name in row and row[name] is not None
        },
        first_failed_rule=row["first_failed_rule"],
        reason=row["reason"],
    )


def collect(
    selection: DataFrame,
    keyed: DataFrame,
    roots: ImageRoots | None,
    boundaries: Sequence[RuleBoundary],
    signals: Sequence[str],
    each: int,
) -> list[Gallery]:
    """All pictures of a report. Runs two Spark jobs."""
    plans, each = plan(boundaries, signals, each)
    chosen = choose(selection, [strip for _, strips in plans for strip in strips], each)
    fetched = fetch(keyed, roots, (row for rows in chosen for row in rows))
    galleries = []
    rows_of_strips = iter(chosen)
    for gallery, strip_plans in plans:
        strips = tuple(
            Strip(
                strip.title,
                tuple(
                    picture(row, fetched.get(tuple(row[name] for name in PAIRS_KEYS)))
                    for row in next(rows_of_strips)
                ),
            )
            for strip in strip_plans
        )
        galleries.append(replace(gallery, strips=strips))
    return galleries
