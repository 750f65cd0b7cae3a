"""The signals table: its columns, and those signals that need no look into images or text."""

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
        described("width", T.IntegerType(), "in pixels, as stated in the file"),
        described("height", T.IntegerType(), "in pixels, as stated in the file"),
        described("shorter_side", T.IntegerType(), "in pixels: the lesser of width and height"),
        described("aspect_ratio", T.DoubleType(), "longer side / shorter side, at least 1"),
        described("language", T.StringType(), "of the caption, ISO 639 code; null without letters"),
        described("language_probability", T.FloatType(), "how certain the language is, 0..1"),
        described("caption_words", T.IntegerType(), "words of the caption, split at white space"),
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
        described(
            "near_image_copies",
            T.LongType(),
            "rows in the group of nearly this image, this one included",
        ),
        described(
            "near_caption_of",
            T.StringType(),
            "uid of the row that stands for all with nearly this caption; null if it is this one",
        ),
        described(
            "near_caption_copies",
            T.LongType(),
            "rows in the group of nearly this caption, this one included",
        ),
        described("phash", T.StringType(), "perceptual hash of the image, 16 hex digits"),
        described("text_in_image", T.StringType(), "text read in the image, line by line"),
        described(
            "text_in_image_overlap",
            T.FloatType(),
            "share of the caption's words that occur in text_in_image, 0..1",
        ),
        described(
            "signal_status",
            T.StringType(),
            "ok, or why a signal is missing: bad_image, empty_caption, signal_error",
        ),
        described("signal_reason", T.StringType(), "the reason for the status, in words"),
    ]
)

_EMPTY_SHA = hashlib.sha256(b"").hexdigest()


def hash_order() -> list[Column]:
    """The order in which to pick one of several rows: by a hash of the uid, then by the key."""
    return [F.xxhash64("uid"), *(F.col(key) for key in PAIRS_KEYS)]


def first_rows(pairs: DataFrame, limit: int) -> DataFrame:
    """The first `limit` rows of `pairs` (with keys) in hash order, and any more of the last hash.

    Sorts hashes only, without moving images.
    """
    first_hashes = pairs.select(F.xxhash64("uid").alias("hash")).orderBy("hash").limit(limit)
    last = first_hashes.agg(F.max("hash").alias("last"))
    return pairs.join(F.broadcast(last), F.xxhash64("uid") <= F.col("last")).drop("last")


def with_row(keyed: DataFrame) -> DataFrame:
    """Add `row`, a struct that is unique and orders the rows, by the hash of the uid first.

    Fields: `absent` (1 without uid, else 0), `hash`, `uid`, `image_sha`, `caption_sha`, `copy` (0,
    1, ... among identical rows).
    """
    # Rows without a uid come last, so that they never represent rows that have one.
    absent = F.col("uid").isNull().cast("int")
    identical = Window.partitionBy(*PAIRS_KEYS).orderBy(F.lit(0))
    copy = (F.row_number().over(identical) - 1).alias("copy")
    hashed = F.xxhash64("uid").alias("hash")
    row = F.struct(absent.alias("absent"), hashed, *map(F.col, PAIRS_KEYS), F.col("copy"))
    return keyed.withColumn("copy", copy).withColumn("row", row).drop("copy")


def with_copies(rows: DataFrame) -> DataFrame:
    """Add `image_copies`, `caption_copies` and `duplicate` to rows with `row`.

    Copies are counted by the hashes. For missing or empty images and captions they are null.
    """
    for kind in ("image", "caption"):
        sha = f"{kind}_sha"
        counted = (
            rows.where(F.col(sha) != _EMPTY_SHA)
            .groupBy(sha)
            .agg(F.count("*").alias(f"{kind}_copies"), F.min("row").alias(f"_first_{kind}"))
        )
        rows = rows.join(counted, on=sha, how="left")
    is_other = ~F.col("row").eqNullSafe(F.col("_first_image"))  # null-safe: a row may lack a uid
    duplicate = F.when(F.col("image_copies").isNotNull(), is_other)
    return rows.withColumn("duplicate", duplicate).drop("_first_image", "_first_caption")


def with_all_columns(rows: DataFrame) -> DataFrame:
    """`rows` with the columns of SIGNALS_TABLE: derived ones filled in, missing ones null."""
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
