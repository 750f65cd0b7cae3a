"""The tables that fine-tuning reads, judged: what is trained on, held out, or left out and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from udfs.core.metrics import METRICS

from ..core.errors import UsageError
from ..core.settings import nearest
from ..tables.delta import quoted
from ..tables.ratings import find_column, number, read_table


@dataclass(frozen=True)
class Sources:
    """The tables, and what their columns are called. `pairs` has the images of instructions that
    neither have an `image` column nor are among the captions."""

    instructions: str | None
    captions: str | None
    pairs: str | None
    style: str
    hold_out: tuple[str, ...] = ()
    group_column: str | None = None
    caption_columns: tuple[str, ...] = ("caption",)
    limit: int | None = None


@dataclass(frozen=True)
class Told:
    """The tables, read and judged. `instructions`: uid, caption, metric, score, reason, `why` (not
    used; null where it is), `held`. `images`: uid, image, captions, group, `why`, `held`, and
    `matches`, whether the captions are to be trained on."""

    instructions: DataFrame
    images: DataFrame

    def counts(self) -> dict[str, Any]:
        """Rows used, held out, and left out by the reason."""
        result: dict[str, Any] = {"left_out": {}}
        rows = self.instructions.groupBy("why", "held", "metric").count().collect()
        result["instructions"] = _sum(
            (row["metric"], row["count"]) for row in rows if not row["why"] and not row["held"]
        )
        result["held_out_instructions"] = _sum(
            (row["metric"], row["count"]) for row in rows if not row["why"] and row["held"]
        )
        result["left_out"]["instructions"] = _sum(
            (row["why"], row["count"]) for row in rows if row["why"]
        )
        known = self.images.where("matches")
        rows = known.groupBy("why", "held").agg(F.count("*"), F.sum(F.size("captions"))).collect()
        used = [row for row in rows if not row[0] and not row[1]]
        result["images"] = sum(row[2] for row in used)
        result["captions"] = sum(row[3] or 0 for row in used)
        result["held_out_images"] = sum(row[2] for row in rows if not row[0] and row[1])
        result["left_out"]["captions"] = _sum((row[0], row[2]) for row in rows if row[0])
        return result

    def tokens(self) -> int:
        """Roughly how many tokens captions and reasons to train on have: four characters each."""
        used = F.col("why").isNull() & ~F.col("held")
        texts = F.aggregate("captions", F.lit(0), lambda total, text: total + F.length(text))
        own = self.images.where(used).agg(F.sum(texts)).first()
        length = F.length("caption") + F.coalesce(F.length("reason"), F.lit(0))
        asked = self.instructions.where(used).agg(F.sum(length)).first()
        return sum(row[0] or 0 for row in (own, asked) if row) // 4


def _sum(counted: Iterable[tuple[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for name, count in counted:
        total[name] += count
    return dict(sorted(total.items()))


def read(spark: SparkSession, sources: Sources) -> Told:
    """Read the tables. Raises UsageError for a table, column or group that is not there."""
    known, scored = _captions(spark, sources), _instructions(spark, sources)
    own = _images(spark, sources)
    parts = [part for part in (known, own) if part is not None]
    if not parts:
        raise UsageError(
            "--instructions has no column image: give --captions or --pairs with the images"
        )
    given = reduce(DataFrame.unionByName, parts)
    if scored is None:
        scored = spark.createDataFrame([], _INSTRUCTIONS_SQL)
    # A uid's group is the same in all tables, even where only one of them says so.
    groups = given.where("group is not null").groupBy("uid").agg(F.min("group").alias("group"))
    given = given.drop("group").join(groups, on="uid", how="left")
    _check_groups(groups, sources)
    held = F.coalesce(F.col("group").isin(list(sources.hold_out)), F.lit(False))
    given = given.withColumn("held", held).withColumn("sha", F.sha2("image", 256))
    held_images = given.where("held").select("sha").distinct().withColumn("twin", F.lit(True))
    given = given.join(held_images, on="sha", how="left")
    why = (
        F.when(F.col("uid").isNull(), "no uid")
        .when(F.col("image").isNull() | (F.length("image") == 0), "no image")
        .when(~F.col("held") & F.col("twin"), "same image as one that is held out")
        .when(F.col("matches") & (F.size("captions") == 0), "no caption")
    )
    given = given.withColumn("why", why).drop("twin", "sha")
    by_uid = given.where("why is null or why = 'no caption'").groupBy("uid")
    usable = by_uid.agg(F.max("held").alias("held"), F.lit(True).alias("usable"))
    twins = given.where("why = 'same image as one that is held out'").select("uid").distinct()
    scored = scored.join(usable, on="uid", how="left")
    scored = scored.join(twins.withColumn("twin", F.lit(True)), on="uid", how="left")
    found = (
        F.when(F.col("why").isNotNull(), F.col("why"))
        .when(F.col("usable").isNull() & F.col("twin"), "same image as one that is held out")
        .when(F.col("usable").isNull(), "no image")
    )
    judged = F.coalesce("held", F.lit(False))
    scored = scored.withColumn("why", found).withColumn("held", judged).drop("usable", "twin")
    return Told(scored, given)


_INSTRUCTIONS_SQL = (
    "uid string, caption string, metric string, score double, reason string, why string"
)


def _captions(spark: SparkSession, sources: Sources) -> DataFrame | None:
    """uid, image, captions, group, matches: a row of the captions table each."""
    if sources.captions is None:
        return None
    frame = _limited(read_table(spark, sources.captions, "--captions"), sources.limit)
    for name in ("uid", "image"):
        find_column(frame, name, "--captions", sources.captions)
    for name in sources.caption_columns:
        find_column(frame, name, "--caption-column", sources.captions)
    columns = [F.col(quoted(name)).cast("string") for name in sources.caption_columns]
    own = F.filter(F.array(*columns), lambda text: F.length(F.trim(text)) > 0)
    return frame.select(
        F.col("uid").cast("string").alias("uid"),
        _image(frame, "--captions").alias("image"),
        F.transform(own, lambda text: text.cast("binary")).alias("captions"),
        _group(frame, sources).alias("group"),
        F.lit(True).alias("matches"),
    )


def _image(frame: DataFrame, option: str) -> Column:
    if not isinstance(frame.schema["image"].dataType, T.BinaryType):
        raise UsageError(f"{option}: the column image must hold bytes (see mlm-filter ingest)")
    return F.col("image")


def _group(frame: DataFrame, sources: Sources, required: bool = True) -> Column:
    name = sources.group_column
    if name is None or (not required and name not in frame.columns):
        return F.lit(None).cast("string")
    find_column(frame, name, "--group-column", "the table")
    return F.col(quoted(name)).cast("string")


def _limited(frame: DataFrame, limit: int | None) -> DataFrame:
    """The same rows in every run."""
    if limit is None:
        return frame
    keys = [name for name in ("uid", "caption", "metric") if name in frame.columns]
    return frame.orderBy(F.xxhash64("uid"), *keys).limit(limit)


def _images(spark: SparkSession, sources: Sources) -> DataFrame | None:
    """As `_captions`, without captions: what else is known of the uids of instructions, one row
    each."""
    if sources.instructions is None:
        return None
    wanted = read_table(spark, sources.instructions, "--instructions")
    find_column(wanted, "uid", "--instructions", sources.instructions)
    uids = wanted.select(F.col("uid").cast("string").alias("uid")).distinct()
    found = []
    for ref, option in ((sources.instructions, "--instructions"), (sources.pairs, "--pairs")):
        if ref is None:
            continue
        frame = read_table(spark, ref, option)
        if option == "--pairs":
            for name in ("uid", "image"):
                find_column(frame, name, option, ref)
        has_image = "image" in frame.columns
        if not has_image and (sources.group_column not in frame.columns):
            continue
        image = _image(frame, option) if has_image else F.lit(None).cast("binary")
        known = frame.select(
            F.col("uid").cast("string").alias("uid"),
            image.alias("image"),
            _group(frame, sources, required=False).alias("group"),
        )
        if option == "--pairs":
            known = known.join(uids, on="uid", how="left_semi")
        known = known.groupBy("uid").agg(F.min("image").alias("image"), F.min("group"))
        found.append(
            known.select(
                "uid",
                "image",
                F.array().cast("array<binary>").alias("captions"),
                F.col("min(group)").alias("group"),
                F.lit(False).alias("matches"),
            )
        )
    return reduce(DataFrame.unionByName, found) if found else None


def _instructions(spark: SparkSession, sources: Sources) -> DataFrame | None:
    """uid, caption, metric, score, reason, why: one row a pair and metric, the mean of its scores
    where there are several."""
    ref = sources.instructions
    if ref is None:
        return None
    frame = _limited(read_table(spark, ref, "--instructions"), sources.limit)
    for name in ("uid", "caption", "metric", "score"):
        find_column(frame, name, "--instructions", ref)
    reason = F.col("reason").cast("string") if "reason" in frame.columns else F.lit(None)
    style = F.col("style").cast("string") if "style" in frame.columns else F.lit(None)
    metric, score = F.lower(F.trim(F.col("metric").cast("string"))), number(frame, "score")
    text = F.col("caption").cast("string")
    why = (
        F.when(F.col("uid").isNull(), "no uid")
        .when(text.isNull() | (F.length(F.trim(text)) == 0), "no caption")
        .when(metric.isNull() | ~metric.isin(*METRICS), "unknown metric")
        .when(score.isNull(), "no score")
        .when(~score.between(0, 100), "score outside 0..100")
        .when(style.isNotNull() & (style != sources.style), "another style")
    )
    rows = frame.select(
        F.col("uid").cast("string").alias("uid"),
        text.alias("caption"),
        metric.alias("metric"),
        score.alias("score"),
        reason.cast("string").alias("reason"),
        why.alias("why"),
    )
    by_pair = rows.where("why is null").groupBy("uid", "caption", "metric")
    good = by_pair.agg(F.round(F.avg("score"), 6).alias("score"), F.min("reason").alias("reason"))
    return good.withColumn("why", F.lit(None).cast("string")).unionByName(
        rows.where("why is not null")
    )


def _check_groups(groups: DataFrame, sources: Sources) -> None:
    if not sources.hold_out:
        return
    names = [row[0] for row in groups.select("group").distinct().collect()]
    for name in sources.hold_out:
        if name not in names:
            guess = nearest(name, names)
            hint = f"; did you mean {guess}?" if guess else ""
            raise UsageError(f"--hold-out: no group {name} in {sources.group_column}{hint}")
