"""The tables that fine-tuning reads: a teacher's answers, the images, and which are held out.

What is wrong in them stops the job before anything is trained; what has no score to learn from is
left out, counted by reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from udfs.core.metrics import METRICS

from ..core.errors import UsageError
from ..core.settings import nearest
from ..tables.delta import quoted
from ..tables.external_table import find_column, read_table
from ..tables.ratings import number

MOST_SPREAD = 50.0


@dataclass(frozen=True)
class Tables:
    """What was read.

    Attributes:
        instructions: uid, caption, metric, score, spread, reason, held_out; one row a metric of a
            pair, the mean of its scores where there are several.
        images: uid, image, held_out; one row for each uid of the instructions.
        left_out: rows without anything to learn from, by reason.
    """

    instructions: DataFrame
    images: DataFrame
    left_out: dict[str, int]


def read_tables(
    spark: SparkSession,
    instructions: str,
    pairs: str | None,
    style: str,
    group_column: str | None,
    hold_out: Sequence[str],
    limit: int | None,
) -> Tables:
    """Read and check the tables.

    Raises:
        UsageError: a table or column is missing, a row is wrong (unknown metric, score outside
            0..100, no uid, no caption, no image for a uid), nothing is left to train on, or a
            group to hold out is not there.
    """
    frame = read_table(spark, instructions, "--instructions")
    long = _long(frame, instructions).localCheckpoint()
    _refuse_wrong_rows(long, instructions)
    why = (
        F.when(F.coalesce("status", F.lit("ok")) != "ok", F.concat(F.lit("status "), "status"))
        .when(F.col("score").isNull(), "no score")
        .when(F.coalesce("style", F.lit(style)) != style, "another style")
    )
    with_reason = long.withColumn("why", why)
    counts = with_reason.where("why is not null").groupBy("why").count().collect()
    left_out = {row["why"]: row["count"] for row in sorted(counts)}
    good = with_reason.where("why is null").groupBy("uid", "caption", "metric")
    rows = good.agg(
        F.round(F.avg("score"), 6).alias("score"),
        F.round(F.avg("spread"), 6).alias("spread"),
        F.min("reason").alias("reason"),
    )
    if limit is not None:
        rows = rows.orderBy(F.xxhash64("uid"), "uid", "caption", "metric").limit(limit)
    rows = rows.localCheckpoint()
    if rows.isEmpty():
        reasons = "; ".join(f"{reason} {count:,}" for reason, count in left_out.items())
        raise UsageError(
            f"--instructions {instructions}: nothing to learn from ({reasons or 'empty'})"
        )
    images, groups = _images(spark, frame, instructions, pairs, group_column, rows)
    held_out = _held_out(groups, group_column, hold_out, rows)
    flagged = F.coalesce("held_out", F.lit(False)).alias("held_out")
    rows = rows.join(held_out, "uid", "left").select(*rows.columns, flagged)
    images = images.join(held_out, "uid", "left").select("uid", "image", flagged)
    return Tables(rows, images, left_out)


def _long(frame: DataFrame, ref: str) -> DataFrame:
    """One row a metric: uid, caption, metric, score, spread, reason, style, status."""
    for name in ("uid", "caption"):
        find_column(frame, name, "--instructions", ref)
    optional = {
        name: (F.col(name) if name in frame.columns else F.lit(None)).cast("string").alias(name)
        for name in ("reason", "style", "status")
    }
    spread = number(frame, "spread") if "spread" in frame.columns else F.lit(None).cast("double")
    keys = [F.col(name).cast("string").alias(name) for name in ("uid", "caption")]
    if "metric" in frame.columns:
        find_column(frame, "score", "--instructions", ref)
        return frame.select(
            *keys,
            F.lower(F.trim(F.col("metric").cast("string"))).alias("metric"),
            F.col("score").cast("string").alias("given"),
            number(frame, "score").alias("score"),
            spread.alias("spread"),
            *optional.values(),
        )
    wide = [metric for metric in METRICS if metric in frame.columns]
    if not wide:
        raise UsageError(
            f"--instructions {ref}: there is no column metric, and none of {', '.join(METRICS)}"
            f" (it has {', '.join(frame.columns)})"
        )
    parts = [
        F.struct(
            F.lit(metric).alias("metric"),
            F.col(metric).cast("string").alias("given"),
            number(frame, metric).alias("score"),
            _reason_of(frame, metric).alias("reason"),
        )
        for metric in wide
    ]
    exploded = frame.select(
        *keys,
        spread.alias("spread"),
        optional["style"],
        optional["status"],
        F.explode(F.array(*parts)).alias("answer"),
    )
    return exploded.select("uid", "caption", "answer.*", "spread", "style", "status").where(
        "given is not null"  # a pair that was not asked for this metric
    )


def _reason_of(frame: DataFrame, metric: str) -> Column:
    """The reason for one metric of a wide table: `why.itm`, `reason.itm` or `itm_reason`."""
    for name in ("why", "reason"):
        if name in frame.columns:
            kind = frame.schema[name].dataType
            if isinstance(kind, T.MapType) or (
                isinstance(kind, T.StructType) and metric in kind.names
            ):
                return F.col(name)[metric].cast("string")
    name = f"{metric}_reason"
    return (F.col(name) if name in frame.columns else F.lit(None)).cast("string")


def _refuse_wrong_rows(rows: DataFrame, ref: str) -> None:
    """Raise UsageError for rows that no training can take, with their number and an example."""
    wrong: dict[str, Column] = {
        "no uid": F.col("uid").isNull(),
        "no caption": F.length(F.trim(F.coalesce("caption", F.lit("")))) == 0,
        f"an unknown metric (there are {', '.join(METRICS)})": ~F.coalesce(
            F.col("metric").isin(*METRICS), F.lit(False)
        ),
        "a score that is no number": F.col("given").isNotNull() & F.col("score").isNull(),
        "a score outside 0..100": ~F.coalesce(F.col("score").between(0, 100), F.lit(True)),
        f"a spread outside 0..{MOST_SPREAD:g}": ~F.coalesce(
            F.col("spread").between(0, MOST_SPREAD), F.lit(True)
        ),
    }
    example = F.concat_ws(" ", F.coalesce("uid", F.lit("null")), "metric", "given")
    found = rows.agg(
        *(F.count_if(condition) for condition in wrong.values()),
        *(F.min(F.when(condition, example)) for condition in wrong.values()),
    ).first()
    assert found is not None
    problems = [
        f"{found[i]:,} rows have {what}, such as {found[len(wrong) + i]}"
        for i, what in enumerate(wrong)
        if found[i]
    ]
    if problems:
        raise UsageError(f"--instructions {ref}: {'; '.join(problems)}")


def _images(
    spark: SparkSession,
    frame: DataFrame,
    ref: str,
    pairs: str | None,
    group_column: str | None,
    rows: DataFrame,
) -> tuple[DataFrame, DataFrame]:
    """The image of each uid, (uid, image), and the groups that the tables name, (uid, group)."""
    sources = [("--instructions", ref, frame)]
    if pairs is not None:
        sources.append(("--pairs", pairs, read_table(spark, pairs, "--pairs")))
    images: list[DataFrame] = []
    groups: list[DataFrame] = []
    needed = rows.select("uid").distinct()
    for option, name, table in sources:
        if option == "--pairs":
            for column in ("uid", "image"):
                find_column(table, column, option, name)
        table = table.withColumn("uid", F.col("uid").cast("string"))
        if "image" in table.columns:
            images.append(table.select("uid", _bytes(table, option).alias("image")))
        if group_column in table.columns:
            group = F.col(quoted(str(group_column))).cast("string")
            groups.append(table.select("uid", group.alias("group")))
    if not images:
        raise UsageError(
            f"--instructions {ref} has no column image: give --pairs with uid and image"
        )
    if group_column is not None and not groups:
        known = sorted({column for _, _, table in sources for column in table.columns})
        near = nearest(group_column, known)
        hint = f"; did you mean {near}?" if near else ""
        raise UsageError(f"--group-column: no table has a column {group_column}{hint}")
    found = (
        reduce(DataFrame.unionByName, images)
        .where("image is not null")
        .join(needed, "uid", "left_semi")
    )
    found = found.groupBy("uid").agg(
        F.min("image").alias("image"), F.countDistinct("image").alias("n")
    )
    found = found.localCheckpoint()
    several = found.where("n > 1").select("uid").first()
    if several is not None:
        raise UsageError(f"the uid {several[0]} has several images: which one did the teacher see?")
    missing = needed.join(found, "uid", "left_anti")
    absent = missing.agg(F.count("*"), F.min("uid")).first()
    if absent is not None and absent[0]:
        hint = "" if pairs else " (--pairs can name a table of uid and image)"
        raise UsageError(f"{absent[0]:,} uids have no image, such as {absent[1]}{hint}")
    groups = groups or [spark.createDataFrame([], "uid string, group string")]
    named = (
        reduce(DataFrame.unionByName, groups)
        .where("group is not null")
        .groupBy("uid")
        .agg(F.min("group").alias("group"))
    )
    return found.drop("n"), named


def _bytes(frame: DataFrame, option: str) -> Column:
    kind = frame.schema["image"].dataType
    if isinstance(kind, T.StructType) and "bytes" in kind.names:  # as Hugging Face datasets has it
        return F.col("image.bytes")
    if not isinstance(kind, T.BinaryType):
        raise UsageError(f"{option}: column image is {kind.simpleString()}, not bytes of images")
    return F.col("image")


def _held_out(
    groups: DataFrame, group_column: str | None, hold_out: Sequence[str], rows: DataFrame
) -> DataFrame:
    """The uids of the groups to hold out: uid, held_out."""
    if hold_out:
        known = [row[0] for row in groups.select("group").distinct().collect()]
        for name in hold_out:
            if name not in known:
                near = nearest(name, known)
                hint = f"; did you mean {near}?" if near else ""
                raise UsageError(f"--hold-out: no group {name} in {group_column}{hint}")
    found = groups.where(F.col("group").isin(list(hold_out)))
    found = found.select("uid", F.lit(True).alias("held_out"))
    if hold_out:
        count = rows.join(found, "uid", "left_semi").count()
        if not count:
            raise UsageError(f"--hold-out {', '.join(hold_out)}: no instruction is about them")
        if count == rows.count():
            raise UsageError("--hold-out names all groups: nothing is left to train on")
    return found
