"""Scores as the paper's own code writes them: for each tar, one Parquet file per metric.

The files have every sample of the tars once, scored or not, whatever a selection says. Executors
write them, a tar at a time; `udfs/outputs/upstream_score_files.py` describes their content.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from udfs.core.metrics import METRICS
from udfs.outputs.upstream_score_files import (
    TASKS,
    is_score_file,
    relative_stems,
    score_file,
    tar_writer,
)
from udfs.scoring.results import SCORED

from ..core.errors import UsageError
from ..tables.pairs import PAIRS_KEYS

_TAR = r"(?is)^(.*?\.tar)(?:#(.*))?$"
_WRITTEN = "stem string, rows long, scored long, files array<string>"


def choose_scorer(scores: DataFrame, ref: str, wanted: str | None) -> str:
    """The scorer whose scores are written: `wanted`, or the only one.

    Raises:
        UsageError: there are several, or no such scorer; the message lists them.
    """
    found = sorted(str(row[0]) for row in scores.select("scorer").distinct().collect())
    if wanted in found or (wanted is None and len(found) == 1):
        return wanted or found[0]
    listing = f"the scorers {', '.join(found)}" if found else "no rows"
    if wanted is None:
        raise UsageError(f"{ref} has {listing}: choose one by --scorer")
    raise UsageError(f"{ref} has no scores of scorer {wanted}; it has {listing}")


def likeliest_numbers(scores: DataFrame, scorer: str) -> DataFrame:
    """Keys of the scored pairs and the likeliest number, 0..100, of each metric.

    The likeliest number is what upstream's model prints.
    """
    scored = scores.where((F.col("scorer") == scorer) & F.col("status").isin(*SCORED))
    numbers = [F.col(f"{metric}_mode").alias(metric) for metric in METRICS]
    return scored.select(*PAIRS_KEYS, *numbers).dropDuplicates(list(PAIRS_KEYS))


def samples(pairs: DataFrame) -> DataFrame:
    """The rows of a pairs table that are samples of tars: keys, `tar`, `member`, texts.

    The row that stands for the unreadable rest of a broken tar has no `key`: it is not a sample.
    """

    def text(name: str) -> Column:
        column = F.col(name) if name in pairs.columns else F.lit(None)
        return column.cast("string").alias(name)

    path = F.col("source_path")
    rows = pairs.where(F.col("key").isNotNull()) if "key" in pairs.columns else pairs
    return rows.select(
        *PAIRS_KEYS,
        F.regexp_extract(path, _TAR, 1).alias("tar"),
        F.regexp_extract(path, _TAR, 2).alias("member"),
        *map(text, ("key", "url", "metadata", "caption")),
    )


def tars_of(rows: DataFrame, folder: Path) -> tuple[dict[str, str], int]:
    """tar -> its name below `folder`; and the number of samples in tars.

    Raises:
        UsageError: no row comes from a tar, or a file of another program would be replaced.
    """
    found = rows.groupBy("tar").count().collect()
    rows_by_tar = {row[0]: row[1] for row in found if row[0]}
    if not rows_by_tar:
        raise UsageError(
            "no row of --pairs comes from a tar (its source_path would be <name>.tar#<member>);"
            " upstream's score files belong to tars: ingest --source webdataset"
        )
    stems = relative_stems(sorted(rows_by_tar))
    for stem in stems.values():
        for task in TASKS.values():
            path = score_file(str(folder), stem, task)
            if path.exists() and not is_score_file(path):
                raise UsageError(f"{path} was written by another program: name another --output")
    return stems, sum(rows_by_tar.values())


def write(
    rows: DataFrame, numbers: DataFrame, stems: dict[str, str], folder: Path
) -> dict[str, Any]:
    """Write the files; return counts."""
    spark = rows.sparkSession
    names = F.broadcast(spark.createDataFrame(list(stems.items()), "tar string, stem string"))
    named = rows.join(names, "tar", "inner").join(numbers, list(PAIRS_KEYS), "left")
    columns = ("stem", "uid", "key", "url", "caption", "metadata", "member", *METRICS)
    folder.mkdir(parents=True, exist_ok=True)
    by_tar = named.select(*columns).groupBy("stem")
    written = by_tar.applyInArrow(tar_writer(str(folder)), _WRITTEN).collect()
    missing = [file for row in written for file in row["files"] if not Path(file).is_file()]
    if missing:
        raise UsageError(
            f"{missing[0]} does not exist on this machine: executors have written to their own"
            " disks; --output has to be a path that all machines share"
        )
    return {
        "tars": len(written),
        "files": sum(len(row["files"]) for row in written),
        "rows": sum(row["rows"] for row in written),
        "scored": sum(row["scored"] for row in written),
    }
