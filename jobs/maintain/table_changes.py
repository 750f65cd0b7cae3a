"""What a scores table lacks of columns, comments, constraints, clustering; the SQL that adds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pyspark.sql import Row, SparkSession
from pyspark.sql import functions as F

from udfs.core.metrics import METRICS

from ..core.errors import UsageError
from ..tables import delta, scores

RANGES = {metric: (0, 100) for metric in METRICS} | {"clip_score": (-1, 1)}
"""Column -> its least and greatest value; null is allowed too, NaN is not."""


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
        changes.append(Change(f"column {names}", delta.add_columns(ref, added)))
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
    for name, condition in _missing_constraints(detail).items():
        sql = f"ALTER TABLE {table} ADD CONSTRAINT {_constraint(name)} CHECK ({condition})"
        changes.append(Change(f"constraint {_constraint(name)}", sql))
    if not detail["clusteringColumns"] and not detail["partitionColumns"]:
        # Liquid clustering needs features of writers only: delta-rs and pyarrow read the table as
        # before. ZORDER BY would need none, but rewrites the whole table each time; this only what
        # is new.
        changes.append(Change("clustering by uid", f"ALTER TABLE {table} CLUSTER BY (uid)"))
    return changes


def check_ranges(spark: SparkSession, ref: str) -> None:
    """Raises UsageError if rows break a constraint that the table does not have yet."""
    frame = delta.read(spark, ref)
    conditions = {
        name: f"NOT ({condition})"
        for name, condition in _missing_constraints(details(spark, ref)).items()
        if name in frame.columns
    }
    if not conditions:
        return
    found = frame.agg(
        *(F.count_if(F.expr(broken)).alias(name) for name, broken in conditions.items()),
        F.count_if(F.expr(" OR ".join(conditions.values()))).alias("rows"),
        F.min(F.when(F.expr(" OR ".join(conditions.values())), F.col("uid"))).alias("uid"),
    ).first()
    assert found is not None
    if not found["rows"]:
        return
    counts = ", ".join(
        f"{name} {found[name]:,} (not {RANGES[name][0]}..{RANGES[name][1]})"
        for name in conditions
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


def _constraint(column: str) -> str:
    return f"{column}_range"


def _missing_constraints(detail: Row) -> Mapping[str, str]:
    """Column -> condition, for the constraints that a table does not have."""
    return {
        name: f"{name} IS NULL OR {name} BETWEEN {least} AND {greatest}"  # NaN is above any number
        for name, (least, greatest) in RANGES.items()
        if f"delta.constraints.{_constraint(name)}" not in detail["properties"]
    }
