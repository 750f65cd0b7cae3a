"""Pairs tables for the tests of the score job: good rows, and rows with every kind of damage."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from damaged_images import DAMAGED
from pictures import encoded, picture
from pyspark.sql import Row, SparkSession
from pyspark.sql import functions as F

from jobs.tables import delta

Score = Callable[..., dict[str, Any]]
"""score(pairs=..., scores=..., **options) -> the job's summary."""

GOOD = [encoded(picture(40 + i, 30 + i, i), "JPEG") for i in range(20)]


def write(spark: SparkSession, folder: Path, rows: list[Any], files: int = 3) -> str:
    """Write a pairs table; captions go in as bytes, so that they may hold anything."""
    encoded_rows = [(u, i, c.encode() if isinstance(c, str) else c) for u, i, c in rows]
    frame = spark.createDataFrame(encoded_rows, "uid string, image binary, caption binary")
    frame = frame.withColumn("caption", F.col("caption").cast("string")).repartition(files)
    delta.overwrite(frame, str(folder), skipping=("uid",))
    return str(folder)


def score_rows(spark: SparkSession, scores: str) -> list[Row]:
    """All rows of a scores table."""
    return delta.read(spark, scores).collect()


def good_rows(count: int) -> list[Any]:
    return [
        (f"uid-{i:04}", GOOD[i % 20], f"caption number {i} " * (1 + i % 5)) for i in range(count)
    ]


def damaged_rows() -> tuple[list[Any], dict[str, str]]:
    """100 rows of 25 kinds of damage, and the status that each uid must get."""
    kinds: list[tuple[str, Any, Any, str]] = [
        (name, data, "a caption", "bad_image") for name, (data, _) in DAMAGED.items()
    ]
    kinds += [
        ("null_caption", GOOD[0], None, "empty_caption"),
        ("blank_caption", GOOD[0], " \n\t", "empty_caption"),
        ("no_caption", GOOD[0], "", "empty_caption"),
        ("nul_bytes", GOOD[0], "a\x00cat\x00", "ok"),
        ("lone_surrogate", GOOD[0], b"a \xed\xa0\x80 cat", "ok"),
        ("not_utf8", GOOD[0], b"caf\xe9", "ok"),
        ("megabyte", GOOD[0], "word " * 200_000, "caption_truncated"),
        ("special_tokens", GOOD[0], "<image><|im_end|><image>", "ok"),
        ("one_pixel", encoded(picture(1, 1)), "a caption", "ok"),
        ("thin", encoded(picture(1, 5000)), "a caption", "ok"),
        ("both_bad", b"<html>", None, "bad_image"),
        ("emoji", GOOD[0], "\U0001f408" * 30, "ok"),
    ]
    rows, expected = [], {}
    for i in range(100 // len(kinds) + 1):
        for name, image, caption, status in kinds:
            uid = f"{name}-{i}"
            rows.append((uid, image, caption))
            expected[uid] = status
    return rows[:100], {uid: expected[uid] for uid, _, _ in rows[:100]}
