"""Whether a table's uids are the user's own or hashes that ingest made up, as a table property.

    origin = uid_origin.combined(uid_origin.of(spark, pairs), "given")
    uid_origin.record(spark, pairs, origin)

Other programs know a user's uids but not the made-up ones. So the property goes from the pairs
table on to the scores and the selection, and exports that only serve such programs ask for it.
"""

from __future__ import annotations

from typing import Literal, cast, get_args

from pyspark.sql import SparkSession

from .delta import repeat_on_conflict, sql_name

Origin = Literal["given", "made_up", "mixed"]
"""The uids are the user's, or hashes of the pairs, or some are one and some the other."""

PROPERTY = "mlm_filter.uids"


def of(spark: SparkSession, ref: str) -> Origin | None:
    """What is recorded of a Delta table; None if nothing is, as in tables of earlier versions."""
    properties = spark.sql(f"SHOW TBLPROPERTIES {sql_name(ref)}").collect()
    value = next((row["value"] for row in properties if row["key"] == PROPERTY), None)
    return cast(Origin, value) if value in get_args(Origin) else None


def of_column(spark: SparkSession, pairs: str, uid_column: str) -> Origin | None:
    """The origin of the uids in a column of a pairs table: `uid`, or one of the user's own."""
    return of(spark, pairs) if uid_column.lower() == "uid" else "given"


def record(spark: SparkSession, ref: str, origin: Origin | None) -> None:
    """Set the property of a Delta table, or remove it (None). Writes a table version if it changes.

    When rows are added to a table, pass `combined` of what is recorded and what they have.
    """
    if origin == of(spark, ref):
        return
    if origin is None:
        change = f"UNSET TBLPROPERTIES IF EXISTS ('{PROPERTY}')"
    else:
        change = f"SET TBLPROPERTIES ('{PROPERTY}' = '{origin}')"
    alter = f"ALTER TABLE {sql_name(ref)} {change}"
    repeat_on_conflict(ref, lambda: spark.sql(alter).collect())


def combined(*origins: Origin | None) -> Origin | None:
    """The origin of the uids of several tables, or lots of rows, together.

    None, unknown, stays so beside uids that are given; beside made-up ones, some are made up.
    """
    different = set(origins)
    if len(different) == 1:
        return origins[0]
    return "mixed" if different & {"made_up", "mixed"} else None
