"""Scores as the paper's own code leaves them: for each tar, a Parquet file for each metric.

Every sample of the tars comes out once, scored or not, whatever a selection says. Executors write
the files, a tar at a time; `udfs/outputs/upstream_score_files.py` says what is in them.
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
        UsageError: there is a choice, or no such scorer; it lists what there is.
    """
    found = sorted(str(row[0]) for row in scores.select("scorer").distinct().collect())
    if wanted in found or (wanted is None and len(found) == 1):
        return wanted or found[0]
    listed = ", ".join(found) or "no rows"
    if wanted is None:
        raise UsageError(f"{ref} has {listed}: choose a scorer by --scorer")
    raise UsageError(f"{ref} has no scores of scorer {wanted}; it has {listed}")


def answers(scores: DataFrame, scorer: str) -> DataFrame:
    """Keys and the four likeliest numbers (what upstream's model prints) of the scored pairs."""
    scored = scores.where((F.col("scorer") == scorer) & F.col("status").isin(*SCORED))
    numbers = [F.col(f"{metric}_mode").alias(metric) for metric in METRICS]
    return scored.select(*PAIRS_KEYS, *numbers).dropDuplicates(list(PAIRS_KEYS))


def samples(pairs: DataFrame) -> DataFrame:
    """The rows of a pairs table that are samples of tars: keys, `tar`, `member`, what they say.

    What a broken tar lacks is no sample (its row has no `key`).
    """

    def text(name: str) -> Column:
        there = name in pairs.columns
        return (F.col(name) if there else F.lit(None)).cast("string").alias(name)

    path = F.col("source_path")
    rows = pairs.where(F.col("key").isNotNull()) if "key" in pairs.columns else pairs
    return rows.select(
        *PAIRS_KEYS,
        F.regexp_extract(path, _TAR, 1).alias("tar"),
        F.regexp_extract(path, _TAR, 2).alias("member"),
        *map(text, ("key", "url", "metadata", "caption")),
    )


def tars_of(rows: DataFrame, folder: Path) -> tuple[dict[str, str], int]:
    """tar -> its name below `folder`; and how many samples are in tars.

    Raises:
        UsageError: the rows come from no tar, or a file of somebody else would be replaced.
    """
    found = rows.groupBy("tar").count().collect()
    inside = {row[0]: row[1] for row in found if row[0]}
    if not inside:
        raise UsageError(
            "no row of --pairs comes from a tar (its source_path would be <name>.tar#<member>);"
            " upstream's score files belong to tars: ingest --source webdataset"
        )
    stems = relative_stems(sorted(inside))
    for stem in stems.values():
        for task in TASKS.values():
            path = score_file(str(folder), stem, task)
            if path.exists() and not is_score_file(path):
                raise UsageError(f"{path} was written by another program: name another --output")
    return stems, sum(inside.values())


def write(
    rows: DataFrame, numbers: DataFrame, stems: dict[str, str], folder: Path
) -> dict[str, Any]:
    """Write the files; returns counts."""
    spark = rows.sparkSession
    names = F.broadcast(spark.createDataFrame(list(stems.items()), "tar string, stem string"))
    named = rows.join(names, "tar", "inner").join(numbers, list(PAIRS_KEYS), "left")
    told = ("stem", "uid", "key", "url", "caption", "metadata", "member", *METRICS)
    folder.mkdir(parents=True, exist_ok=True)
    by_tar = named.select(*told).groupBy("stem")
    written = by_tar.applyInArrow(tar_writer(str(folder)), _WRITTEN).collect()
    lost = [file for row in written for file in row["files"] if not Path(file).is_file()]
    if lost:
        raise UsageError(
            f"{lost[0]} is not there as this machine sees it: executors have written to a disk of"
            " their own; --output has to be a path that all machines share"
        )
    return {
        "tars": len(written),
        "files": sum(len(row["files"]) for row in written),
        "rows": sum(row["rows"] for row in written),
        "scored": sum(row["scored"] for row in written),
    }
