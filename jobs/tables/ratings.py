"""The ratings that scores are judged by: any table of them, as one row a rated caption.

Either long, a row a rating (`metric`, `rating`), or wide, a column a metric (`itm`, `odf`, `ctq`,
`su`). Several ratings of one thing, by several raters or not, count as their mean.
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
from .external_table import find_column as find_column
from .external_table import read_table as read_table

RATED = "rating_"
"""Before a metric's name: the column of its ratings in `Ratings.captions`."""

_MOST_METRICS = 50
_DECIMALS = 9  # of a mean, which would else depend on the order of its parts


@dataclass(frozen=True)
class Columns:
    """What the ratings table calls its columns; None: the usual name, if it is there."""

    uid: str = "uid"
    caption: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Range:
    """The range of ratings, which is stretched to 0..100."""

    low: float = 0.0
    high: float = 100.0


@dataclass(frozen=True)
class Ratings:
    """Rated captions, and what to tell of them.

    Attributes:
        captions: one row a caption: `uid`, `caption_sha` (null where captions are not known),
            `kind` and `image` (may be null), and `rating_<metric>`, 0..100 or null.
        metrics: those of which there are ratings, in the paper's order, then by name.
        has_captions: whether the table says of which captions the ratings are.
        counts: ratings, those used, and those that are not, by the reason.
    """

    captions: DataFrame
    metrics: tuple[str, ...]
    has_captions: bool
    counts: dict[str, int]

    def first(self, rows: int) -> Ratings:
        """At most so many captions, the same in every run: the first by a hash of the uid."""
        order = (F.xxhash64("uid"), "uid", "caption_sha", "kind", "image")
        return replace(self, captions=self.captions.orderBy(*order).limit(rows))


def caption_hash(caption: Column) -> Column:
    """SHA-256 of a caption in hex, as the scores table has it (jobs/tables/pairs.py)."""
    return F.sha2(F.coalesce(caption.cast("binary"), F.lit(b"")), 256)


def number(frame: DataFrame, column: str) -> Column:
    """A column as a double: null for NaN, infinity and what is no number."""
    value = F.col(delta.quoted(column)).try_cast("double")
    return F.when(F.isnan(value) | (F.abs(value) == F.lit(float("inf"))), None).otherwise(value)


def read_ratings(
    spark: SparkSession, ref: str, columns: Columns, span: Range, unrated: bool
) -> Ratings:
    """Read a ratings table.

    Args:
        spark: the session.
        ref: what `read_table` takes.
        columns: what its columns are called.
        span: the range of its ratings.
        unrated: whether a table without any ratings will do (for ranking checks).

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
    long = _long(frame, keyed, ref, unrated)
    inside = F.col("given").between(span.low, span.high)
    stretched = (F.col("given") - span.low) * (100 / (span.high - span.low))
    long = long.withColumn("rating", F.when(inside, stretched))
    counts, metrics = _count(long)
    if not metrics and not unrated:
        raise UsageError(f"--ratings {ref}: there is no rating from {span.low:g} to {span.high:g}")
    return Ratings(_captions(long, metrics), metrics, has_captions, counts)


def _long(frame: DataFrame, keys: Sequence[Column], ref: str, unrated: bool) -> DataFrame:
    """`uid`, `caption_sha`, `kind`, `image`, `metric`, `given`: a row a rating."""
    if "metric" in frame.columns or "rating" in frame.columns:
        for name in ("metric", "rating"):
            find_column(frame, name, "--ratings", ref)
        metric = F.lower(F.trim(F.col("metric").cast("string")))
        return frame.select(*keys, metric.alias("metric"), number(frame, "rating").alias("given"))
    wide = [metric for metric in METRICS if metric in frame.columns]
    if not wide and not unrated:
        meant = [(metric, nearest(metric, frame.columns)) for metric in METRICS]
        guesses = [f"{near} for {metric}" for metric, near in meant if near]
        raise UsageError(
            f"--ratings {ref} has neither metric and rating nor any of {', '.join(METRICS)}; "
            f"it has {', '.join(frame.columns)}"
            + (f" (did you mean {', '.join(guesses)}?)" if guesses else "")
        )
    if not wide:
        nothing = F.lit(None).cast("string").alias("metric")
        return frame.select(*keys, nothing, F.lit(None).cast("double").alias("given"))
    ratings = [number(frame, metric).alias(metric) for metric in wide]
    narrow = frame.select(*keys, *ratings)
    return narrow.unpivot(("uid", "caption_sha", "kind", "image"), tuple(wide), "metric", "given")


def _count(long: DataFrame) -> tuple[dict[str, int], tuple[str, ...]]:
    """What the rows of a long table are good for, and the metrics that have ratings."""
    keyed = F.col("uid").isNotNull()
    found = (
        long.groupBy("metric")
        .agg(
            F.count("*"),
            F.count_if(~keyed),
            F.count_if(keyed & F.col("given").isNull()),
            F.count_if(keyed & F.col("given").isNotNull() & F.col("rating").isNull()),
            F.count_if(keyed & F.col("rating").isNotNull()),
        )
        .limit(_MOST_METRICS + 2)
        .collect()
    )
    if len(found) > _MOST_METRICS + 1:
        raise UsageError(f"the column metric has over {_MOST_METRICS} values: is it the metric?")
    names = ("ratings", "null_uid", "no_rating", "out_of_range")
    counts = {name: sum(row[1 + i] for row in found) for i, name in enumerate(names)}
    counts["no_metric"] = sum(row[5] for row in found if row[0] is None)
    counts["used"] = sum(row[5] for row in found if row[0] is not None)
    rated = {row[0] for row in found if row[0] is not None and row[5]}
    first = [metric for metric in METRICS if metric in rated]
    return counts, (*first, *sorted(rated - set(METRICS)))


def _captions(long: DataFrame, metrics: Sequence[str]) -> DataFrame:
    """One row a caption, with the mean of its ratings of each metric."""
    means = [
        F.round(F.avg(F.when(F.col("metric") == metric, F.col("rating"))), _DECIMALS)
        for metric in metrics
    ]
    return (
        long.where(F.col("uid").isNotNull())
        .groupBy("uid", "caption_sha", "kind", "image")
        .agg(
            F.count("*").alias("rows"),  # at least something, where there are no ratings
            *(mean.alias(RATED + metric) for metric, mean in zip(metrics, means, strict=True)),
        )
        .drop("rows")
    )
