"""What a scores table lacks of columns, comments, constraints, clustering; the SQL that adds it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

from pyspark.sql import Column, Row, SparkSession
from pyspark.sql import functions as F

from udfs.core.metrics import METRICS

from ..core.errors import UsageError
from ..tables import delta, scores

RANGES = {metric: (0, 100) for metric in METRICS} | {"clip_score": (-1, 1)}
"""Column -> its least and greatest value; null is allowed too, NaN is not."""

CONSTRAINT = "score_ranges"
"""One for all columns: each more would scan the table, and might conflict with a writer."""

_CONDITIONS = {  # NaN is greater than any number
    name: f"({name} IS NULL OR {name} BETWEEN {least} AND {greatest})"
    for name, (least, greatest) in RANGES.items()
}


@dataclass(frozen=True)
class Change:
    """One change of a table: what it adds, and the statement that does it."""

    adds: str
    sql: str


def pending(spark: SparkSession, ref: str) -> list[Change]:
    """What the table lacks, in the order in which to add it."""
    table, schema, detail = delta.sql_name(ref), delta.read(spark, ref).schema, details(spark, ref)
    changes = []
    if added := scores.later_columns(schema.names):
        names = ", ".join(field.name for field in added)
        changes.append(Change(f"column {names}", scores.add_columns(ref, added)))
    uncommented = [
        field
        for field in scores.SCORES_TABLE
        if field.name in schema.names and not schema[field.name].metadata.get("comment")
    ]
    if uncommented:
        comments = ", ".join(
            f"{field.name} COMMENT {delta.sql_text(field.metadata['comment'])}"
            for field in uncommented
        )
        sql = f"ALTER TABLE {table} ALTER COLUMN {comments}"
        changes.append(Change(f"comments of {len(uncommented)} columns", sql))
    if not _is_constrained(detail):
        condition = " AND ".join(_CONDITIONS.values())
        sql = f"ALTER TABLE {table} ADD CONSTRAINT {CONSTRAINT} CHECK ({condition})"
        changes.append(Change(f"constraint {CONSTRAINT}", sql))
    if not detail["clusteringColumns"] and not detail["partitionColumns"]:
        # Liquid clustering needs features of writers only: delta-rs and pyarrow read the table as
        # before. ZORDER BY would need none, but rewrites the whole table each time; this only what
        # is new.
        changes.append(Change("clustering by uid", f"ALTER TABLE {table} CLUSTER BY (uid)"))
    return changes


def check_ranges(spark: SparkSession, ref: str) -> None:
    """Raises UsageError if rows break the constraint and the table does not have it yet."""
    if _is_constrained(details(spark, ref)):
        return
    frame = delta.read(spark, ref)
    broken = {
        name: ~F.expr(condition) for name, condition in _CONDITIONS.items() if name in frame.columns
    }
    any_broken = reduce(Column.__or__, broken.values())
    found = frame.agg(
        *(F.count_if(column).alias(name) for name, column in broken.items()),
        F.count_if(any_broken).alias("rows"),
        F.min(F.when(any_broken, F.col("uid"))).alias("uid"),
    ).first()
    assert found is not None
    if not found["rows"]:
        return
    counts = ", ".join(
        f"{name} {found[name]:,} (not {RANGES[name][0]}..{RANGES[name][1]})"
        for name in broken
        if found[name]
    )
    raise UsageError(
        f"{ref}: {found['rows']:,} rows have scores out of range or NaN: {counts}; the first is of"
        f" uid {found['uid']}. Nothing was changed: delete these rows, and `score` scores them anew"
    )


def details(spark: SparkSession, ref: str) -> Row:
    """What DESCRIBE DETAIL says of a table: its files, bytes, properties, clustering."""
    row = spark.sql(f"DESCRIBE DETAIL {delta.sql_name(ref)}").first()
    assert row is not None
    return row


def _is_constrained(detail: Row) -> bool:
    return f"delta.constraints.{CONSTRAINT}" in detail["properties"]
