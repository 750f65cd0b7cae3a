"""The ratings that scores are compared with: reads a table of them as one row per rated caption.

The table is either long, one row per rating (`metric`, `rating`), or wide, one column per metric
(`itm`, `odf`, `ctq`, `su`). Several ratings of one caption by the same metric count as their mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from udfs.core.metrics import METRICS

from ..core.errors import UsageError
from ..core.settings import nearest
from . import delta
from .external_table import find_column, read_table

RATED = "rating_"
"""Prefix of the rating columns in `Ratings.captions`, before the metric's name."""

_MAX_METRICS = 50
_DECIMALS = 9  # means are rounded, or they would depend on the order of summation


@dataclass(frozen=True)
class Columns:
    """The column names of a ratings table; None: the usual name, if there is such a column."""

    uid: str = "uid"
    caption: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Range:
    """The range of the ratings, which is scaled to 0..100."""

    low: float = 0.0
    high: float = 100.0


@dataclass(frozen=True)
class Ratings:
    """Rated captions, with counts.

    Attributes:
        captions: one row per caption: `uid`, `caption_sha` (null if captions are unknown), `kind`
            and `image` (may be null), and `rating_<metric>`, 0..100 or null.
        metrics: the metrics that have ratings, in the paper's order, then by name.
        has_captions: whether the table has captions or their hashes.
        counts: how many ratings there are, how many are used, and how many are not, by reason.
    """

    captions: DataFrame
    metrics: tuple[str, ...]
    has_captions: bool
    counts: dict[str, int]

    def first(self, rows: int) -> Ratings:
        """At most this many captions, the same in every run: the first by a hash of the uid."""
        order = (F.xxhash64("uid"), "uid", "caption_sha", "kind", "image")
        return replace(self, captions=self.captions.orderBy(*order).limit(rows))


def caption_hash(caption: Column) -> Column:
    """SHA-256 of a caption in hex, as the scores table has it (jobs/tables/pairs.py)."""
    return F.sha2(F.coalesce(caption.cast("binary"), F.lit(b"")), 256)


def number(frame: DataFrame, column: str) -> Column:
    """A column as a double; null for NaN, infinity and values that are not numbers."""
    value = F.col(delta.quoted(column)).try_cast("double")
    return F.when(F.isnan(value) | (F.abs(value) == F.lit(float("inf"))), None).otherwise(value)


def read_ratings(
    spark: SparkSession, ref: str, columns: Columns, span: Range, unrated: bool
) -> Ratings:
    """Read a ratings table.

    Args:
        spark: the session.
        ref: a table reference, as for `read_table`.
        columns: the names of its columns.
        span: the range of its ratings.
        unrated: whether to accept a table without any ratings (for ranking checks).

    Raises:
        UsageError: no such table or column.
    """
    frame = read_table(spark, ref, "--ratings")
    uid = find_column(frame, columns.uid, "--uid-column", ref)
    caption = columns.caption or "caption"
    has_captions = columns.caption is not None or caption in frame.columns
    keys = {"uid": F.col(delta.quoted(uid)).cast("string"), "caption_sha": F.lit(None)}
    if has_captions:
        find_column(frame, caption, "--caption-column", ref)
        keys["caption_sha"] = caption_hash(F.col(delta.quoted(caption)))
    elif "caption_sha" in frame.columns:
        has_captions, keys["caption_sha"] = True, F.col("caption_sha")
    keys["kind"] = F.col("kind") if "kind" in frame.columns else F.lit(None)
    keys["image"] = keys["uid"]
    if columns.group:
        group = find_column(frame, columns.group, "--group-column", ref)
        keys["image"] = F.coalesce(F.col(delta.quoted(group)).cast("string"), keys["uid"])
    keyed = [column.cast("string").alias(name) for name, column in keys.items()]
    long = _one_row_per_rating(frame, keyed, ref, unrated)
    in_range = F.col("given").between(span.low, span.high)
    scaled = (F.col("given") - span.low) * (100 / (span.high - span.low))
    long = long.withColumn("rating", F.when(in_range, scaled))
    counts, metrics = _count(long)
    if not metrics and not unrated:
        raise UsageError(f"--ratings {ref}: there is no rating from {span.low:g} to {span.high:g}")
    return Ratings(_one_row_per_caption(long, metrics), metrics, has_captions, counts)


def _one_row_per_rating(
    frame: DataFrame, keys: Sequence[Column], ref: str, unrated: bool
) -> DataFrame:
    """One row per rating: `uid`, `caption_sha`, `kind`, `image`, `metric`, `given`."""
    if "metric" in frame.columns or "rating" in frame.columns:
        for name in ("metric", "rating"):
            find_column(frame, name, "--ratings", ref)
        metric = F.lower(F.trim(F.col("metric").cast("string")))
        return frame.select(*keys, metric.alias("metric"), number(frame, "rating").alias("given"))
    wide = [metric for metric in METRICS if metric in frame.columns]
    if not wide and not unrated:
        nearest_names = [(metric, nearest(metric, frame.columns)) for metric in METRICS]
        guesses = [f"{name} for {metric}" for metric, name in nearest_names if name]
        raise UsageError(
            f"--ratings {ref} has neither columns metric and rating nor any of"
            f" {', '.join(METRICS)}; it has {', '.join(frame.columns)}"
            + (f" (did you mean {', '.join(guesses)}?)" if guesses else "")
        )
    if not wide:
        no_metric = F.lit(None).cast("string").alias("metric")
        return frame.select(*keys, no_metric, F.lit(None).cast("double").alias("given"))
    ratings = [number(frame, metric).alias(metric) for metric in wide]
    narrow = frame.select(*keys, *ratings)
    return narrow.unpivot(("uid", "caption_sha", "kind", "image"), tuple(wide), "metric", "given")


def _count(long: DataFrame) -> tuple[dict[str, int], tuple[str, ...]]:
    """Counts of the rows of a long table by their use, and the metrics that have ratings."""
    has_uid = F.col("uid").isNotNull()
    by_metric = (
        long.groupBy("metric")
        .agg(
            F.count("*"),
            F.count_if(~has_uid),
            F.count_if(has_uid & F.col("given").isNull()),
            F.count_if(has_uid & F.col("given").isNotNull() & F.col("rating").isNull()),
            F.count_if(has_uid & F.col("rating").isNotNull()),
        )
        .limit(_MAX_METRICS + 2)
        .collect()
    )
    if len(by_metric) > _MAX_METRICS + 1:
        raise UsageError(
            f"the column metric has over {_MAX_METRICS} values: does it really hold metrics?"
        )
    names = ("ratings", "null_uid", "no_rating", "out_of_range")
    counts = {name: sum(row[1 + i] for row in by_metric) for i, name in enumerate(names)}
    counts["no_metric"] = sum(row[5] for row in by_metric if row[0] is None)
    counts["used"] = sum(row[5] for row in by_metric if row[0] is not None)
    rated = {row[0] for row in by_metric if row[0] is not None and row[5]}
    first = [metric for metric in METRICS if metric in rated]
    return counts, (*first, *sorted(rated - set(METRICS)))


def _one_row_per_caption(long: DataFrame, metrics: Sequence[str]) -> DataFrame:
    """One row per caption, with the mean of its ratings by each metric."""
    means = [
        F.round(F.avg(F.when(F.col("metric") == metric, F.col("rating"))), _DECIMALS)
        for metric in metrics
    ]
    return (
        long.where(F.col("uid").isNotNull())
        .groupBy("uid", "caption_sha", "kind", "image")
        .agg(
            F.count("*").alias("rows"),  # `agg` needs a column, even if there are no metrics
            *(mean.alias(RATED + metric) for metric, mean in zip(metrics, means, strict=True)),
        )
        .drop("rows")
    )
