"""The kept uids as DataComp's resharder reads them: sorted by Spark, written by the driver.

A uid is 16 bytes all the way: they are never a list in memory, nor Python objects one by one.
Partitions come to the driver one after the other, so only the driver needs access to the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from udfs.outputs.uid_file import UidWriter, is_uid_file, pack_uids

from ..core.errors import UsageError
from ..core.session import session_settings

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


def count_uids(kept: DataFrame) -> tuple[int, int]:
    """Rows of `kept_uids`, and the sum of their repetitions.

    Raises:
        UsageError: some uids are not 128-bit numbers; the message has examples.
    """
    uid = F.col("uid")
    number = (F.octet_length(uid) == _DIGITS) & F.unhex(uid).isNotNull()
    other = ~F.coalesce(number, F.lit(False))
    row = kept.agg(
        F.count("*"), F.coalesce(F.sum("repetitions"), F.lit(0)), F.count_if(other)
    ).first()
    assert row is not None
    rows, repetitions, others = map(int, row)
    if others:
        some = [repr(found[0]) for found in kept.where(other).select(uid).limit(3).collect()]
        raise UsageError(
            f"{others:,} of {rows:,} kept uids are not {_DIGITS} hexadecimal digits, as DataComp's"
            f" are: {', '.join(some)}{' ...' if others > len(some) else ''}"
        )
    return rows, repetitions


def write(kept: DataFrame, rows: int, path: Path) -> dict[str, Any]:
    """Write the uid file; a uid of several kept rows counts once, with the most repetitions."""
    keys = kept.select(F.unhex("uid").alias("key"), "repetitions")
    # Spark compares binary values byte by byte, unsigned: the order of 128-bit numbers. Rows of one
    # key are in one partition.
    ordered = keys.repartitionByRange(max(1, -(-rows // ROWS)), "key")
    ordered = ordered.sortWithinPartitions("key", F.desc("repetitions"))
    with session_settings(kept.sparkSession, _NARROW):
        pieces = ordered.mapInArrow(pack_uids, "uids binary")
        path.parent.mkdir(parents=True, exist_ok=True)
        with UidWriter(path) as uids:
            for piece in pieces.toLocalIterator(prefetchPartitions=True):
                uids.write(piece[0])
    return {"uids": uids.rows, "bytes": path.stat().st_size}
