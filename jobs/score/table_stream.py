"""Reads a table in slices in one scan, through the table: for tables whose files may not be opened.

Unity Catalog denies the paths of managed tables, and a filter on file names would scan the whole
table for each slice. A stream of the table as it is now reads each file once, some files a slice.
https://docs.delta.io/latest/delta-streaming.html#delta-table-as-a-source
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from pyspark import StorageLevel
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.utils import is_remote

from ..core import scratch_folder
from ..tables.delta import is_name


def must_stream(ref: str) -> bool:
    """Whether to read a table in this way: any with a catalog name, which may deny its paths. Not
    on Spark Connect, where what is done with a slice would have to run in the server."""
    return is_name(ref) and not is_remote()


def for_each_slice(
    spark: SparkSession,
    ref: str,
    columns: Sequence[str],
    files: int,
    use: Callable[[DataFrame, list[str]], object],
) -> None:
    """Call `use` with `columns` and `file_name` of some `files` of the table, and their names; and
    again, until all files have had their turn. A slice waits on the executors' disks meanwhile."""
    name = F.element_at(F.split(F.input_file_name(), "/"), -1).alias("file_name")

    def use_batch(frame: DataFrame, _: int) -> None:
        frame = frame.persist(StorageLevel.DISK_ONLY)
        try:
            names = [row["file_name"] for row in frame.select("file_name").distinct().collect()]
            use(frame, names)
        finally:
            frame.unpersist()

    stream = spark.readStream.format("delta").option("maxFilesPerTrigger", files).table(ref)
    scratch = scratch_folder.of_this_process(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(dir=scratch) as progress:  # of this run alone
        query = (
            stream.select(*columns, name)
            .writeStream.foreachBatch(use_batch)
            .option("checkpointLocation", Path(progress).as_uri())
            .trigger(availableNow=True)
            .start()
        )
        query.awaitTermination()
