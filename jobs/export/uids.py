"""The kept uids as DataComp's resharder reads them: sorted by Spark, written by the driver.

A uid is 16 bytes all the way: they are never a list in memory, nor Python objects one by one.
Partitions come to the driver one after the other, so only the driver needs access to the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from udfs.outputs.uid_file import UidWriter, is_uid_file, pack_uids

from ..core import job_runner
from ..core.errors import UsageError
from ..core.session import session_settings
from ..tables import uid_origin

ROWS = 1_000_000
"""Uids per partition: 16 MB of the file."""

# Rows are narrow: larger batches than those for images.
_NARROW = {
    "spark.sql.execution.arrow.maxRecordsPerBatch": "65536",
    "spark.sql.parquet.columnarReaderBatchSize": "4096",
}
_DIGITS = 32


def check_output(path: Path) -> None:
    """Raise UsageError where no uid file may be written."""
    if path.is_dir():
        raise UsageError(f"--output {path} is a folder: name a file, such as {path / 'uids.npy'}")
    if path.exists() and not is_uid_file(path):
        raise UsageError(f"--output {path} is a file of another kind, which would be replaced")


def check_origin(spark: SparkSession, selection: str, made_up_uids: bool) -> None:
    """Say what is known of a selection's uids. Raises UsageError for made-up ones, unless
    `made_up_uids` says that they are wanted."""
    origin = uid_origin.of(spark, selection)
    if origin is None:
        job_runner.say(
            f"note: {selection} does not say whether its uids are yours or were made up by ingest;"
            " DataComp's resharder finds only uids of the data set that it reads"
        )
    if origin in (None, "given"):
        return
    which = "the uids" if origin == "made_up" else "some uids"
    problem = f"{which} of {selection} were made up by ingest, as the data had none"
    if not made_up_uids:
        raise UsageError(
            f"{problem}: DataComp's resharder would find none of them in its shards; ingest with"
            " --uid-column, or write them all the same with --made-up-uids"
        )
    job_runner.say(f"note: {problem}")


def of_source(uids: DataFrame) -> DataFrame:
    """The uids as the source has them: ingest numbers the captions of one image, `ID#0`, `ID#1`."""
    numbered = rf"^([0-9A-Fa-f]{{{_DIGITS}}})#\d+$"
    return uids.withColumn("uid", F.regexp_replace("uid", numbered, "$1"))


def count_uids(uids: DataFrame) -> tuple[int, int]:
    """Rows of `kept_uids`, and the sum of their repetitions.

    Raises:
        UsageError: some uids are not 128-bit numbers; the message has examples.
    """
    uid = F.col("uid")
    number = (F.octet_length(uid) == _DIGITS) & F.unhex(uid).isNotNull()
    invalid = ~F.coalesce(number, F.lit(False))
    row = uids.agg(
        F.count("*"), F.coalesce(F.sum("repetitions"), F.lit(0)), F.count_if(invalid)
    ).first()
    assert row is not None
    rows, repetitions, invalid_count = map(int, row)
    if invalid_count:
        examples = [
            repr(example[0]) for example in uids.where(invalid).select(uid).limit(3).collect()
        ]
        raise UsageError(
            f"{invalid_count:,} of {rows:,} kept uids are not {_DIGITS} hexadecimal digits, as"
            f" DataComp's are: {', '.join(examples)}"
            f"{' ...' if invalid_count > len(examples) else ''}"
        )
    return rows, repetitions


def write(uids: DataFrame, rows: int, path: Path) -> dict[str, Any]:
    """Write the uid file; a uid of several kept rows counts once, with the most repetitions."""
    keys = uids.select(F.unhex("uid").alias("key"), "repetitions")
    # Spark compares binary values byte by byte, unsigned: the order of 128-bit numbers. Rows of one
    # key are in one partition.
    ordered = keys.repartitionByRange(max(1, -(-rows // ROWS)), "key")
    ordered = ordered.sortWithinPartitions("key", F.desc("repetitions"))
    with session_settings(uids.sparkSession, _NARROW):
        pieces = ordered.mapInArrow(pack_uids, "uids binary")
        path.parent.mkdir(parents=True, exist_ok=True)
        with UidWriter(path) as writer:
            for piece in pieces.toLocalIterator(prefetchPartitions=True):
                writer.write(piece[0])
    return {"uids": writer.rows, "bytes": path.stat().st_size}
