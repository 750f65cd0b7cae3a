"""The signals table: its columns, and what of them is had without looking into images or text."""

from __future__ import annotations

import hashlib

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql import types as T

from .delta import described
from .pairs import PAIRS_KEYS

SIGNALS_TABLE = T.StructType(
    [
        described("uid", T.StringType(), "key of the pair"),
        described("image_sha", T.StringType(), "SHA-256 of the image in hex (of its path)"),
        described("caption_sha", T.StringType(), "SHA-256 of the caption in hex"),
        described("width", T.IntegerType(), "pixels, as the file states them"),
        described("height", T.IntegerType(), "pixels, as the file states them"),
        described("shorter_side", T.IntegerType(), "pixels: the lesser of width and height"),
        described("aspect_ratio", T.DoubleType(), "longer by shorter side, at least 1"),
        described("language", T.StringType(), "of the caption, ISO 639 code; null without letters"),
        described("language_probability", T.FloatType(), "how sure the language is, 0..1"),
        described("caption_words", T.IntegerType(), "what white space divides in the caption"),
        described("caption_characters", T.IntegerType(), "code points of the caption"),
        described("image_copies", T.LongType(), "rows with the same image, this one included"),
        described("caption_copies", T.LongType(), "rows with the same caption, this one included"),
        described(
            "duplicate",
            T.BooleanType(),
            "whether another row with the same image is the one to keep; null without an image",
        ),
        described(
            "near_image_of",
            T.StringType(),
            "uid of the row that stands for all with nearly this image; null if it is this one",
        ),
        described("near_image_copies", T.LongType(), "rows that it stands for, itself included"),
        described(
            "near_caption_of",
            T.StringType(),
            "uid of the row that stands for all with nearly this caption; null if it is this one",
        ),
        described("near_caption_copies", T.LongType(), "rows that it stands for, itself included"),
        described("phash", T.StringType(), "perceptual hash of the image, 16 hex digits"),
        described("text_in_image", T.StringType(), "lines of text read in the image, one a line"),
        described(
            "text_in_image_overlap",
            T.FloatType(),
            "share of the caption's words that are in text_in_image, 0..1",
        ),
        described(
            "signal_status",
            T.StringType(),
            "ok, or why a signal is missing: bad_image, empty_caption, signal_error",
        ),
        described("signal_reason", T.StringType(), "in words, what the status means for this pair"),
    ]
)

_NOTHING = hashlib.sha256(b"").hexdigest()


def hash_order() -> list[Column]:
    """What rows are ordered by wherever one has to be chosen: a hash of the uid, then the key."""
    return [F.xxhash64("uid"), *(F.col(key) for key in PAIRS_KEYS)]


def first_rows(pairs: DataFrame, limit: int) -> DataFrame:
    """The first `limit` rows of `pairs` (with keys) in hash order, and rows of the last uid's hash.

    Sorts hashes only; images are not moved.
    """
    first = pairs.select(F.xxhash64("uid").alias("hash")).orderBy("hash").limit(limit)
    last = first.agg(F.max("hash").alias("last"))
    return pairs.join(F.broadcast(last), F.xxhash64("uid") <= F.col("last")).drop("last")


def with_row(keyed: DataFrame) -> DataFrame:
    """Add `row`, by which rows differ and are ordered: hash of the uid first, none of them twice.

    Fields: `absent` (1 without uid, else 0), `hash`, `uid`, `image_sha`, `caption_sha`, `copy` (0,
    1, ... among rows that are just the same).
    """
    # Last in the order, so that a row without a uid stands for none but its like.
    absent = F.col("uid").isNull().cast("int")
    same = Window.partitionBy(*PAIRS_KEYS).orderBy(F.lit(0))
    copy = (F.row_number().over(same) - 1).alias("copy")
    hashed = F.xxhash64("uid").alias("hash")
    row = F.struct(absent.alias("absent"), hashed, *map(F.col, PAIRS_KEYS), F.col("copy"))
    return keyed.withColumn("copy", copy).withColumn("row", row).drop("copy")


def with_copies(rows: DataFrame) -> DataFrame:
    """Add `image_copies`, `caption_copies` and `duplicate` to rows with `row`.

    Counted by the hashes. Missing and empty images and captions are copies of nothing: null.
    """
    for what in ("image", "caption"):
        sha = f"{what}_sha"
        counted = (
            rows.where(F.col(sha) != _NOTHING)
            .groupBy(sha)
            .agg(F.count("*").alias(f"{what}_copies"), F.min("row").alias(f"_{what}"))
        )
        rows = rows.join(counted, on=sha, how="left")
    other = ~F.col("row").eqNullSafe(F.col("_image"))  # null-safe: a row may lack a uid
    duplicate = F.when(F.col("image_copies").isNotNull(), other)
    return rows.withColumn("duplicate", duplicate).drop("_image", "_caption")


def finished(rows: DataFrame) -> DataFrame:
    """`rows` with the columns of SIGNALS_TABLE: missing ones null, derived ones filled in."""
    longer, shorter = F.greatest("width", "height"), F.least("width", "height")
    derived = {"shorter_side": shorter, "aspect_ratio": longer / shorter}
    if "width" in rows.columns:
        rows = rows.withColumns(derived)
    if "signal_status" not in rows.columns:
        rows = rows.withColumn("signal_status", F.lit("ok"))
    columns = [
        (F.col(field.name) if field.name in rows.columns else F.lit(None))
        .cast(field.dataType)
        .alias(field.name, metadata=dict(field.metadata))
        for field in SIGNALS_TABLE
    ]
    return rows.select(*columns)
