"""The kept rows of the pairs table, each once, with their scores."""

from collections.abc import Sequence

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql import types as T

from udfs.core.metrics import METRICS

from . import delta
from .pairs import PAIRS_KEYS
from .scores import SCORES_TABLE
from .selection import REPETITIONS

BROADCAST_ROWS = 100_000
"""So many kept rows are sent to every executor, some 20 MB; with more, Spark chooses the join."""

_COMMENTS = T.StructType([*SCORES_TABLE, REPETITIONS])


def carried(selection: DataFrame, with_repetitions: bool) -> list[str]:
    """What goes with a kept pair: the four metrics, `clip_score` if a rule used it, maybe more."""
    names = (*METRICS, "clip_score", *(["repetitions"] if with_repetitions else []))
    return [name for name in names if name in selection.columns]


def kept_keys(selection: DataFrame, with_repetitions: bool = False) -> DataFrame:
    """Keys and scores of the kept rows, each key once."""
    kept = selection.where("keep").select(*PAIRS_KEYS, *carried(selection, with_repetitions))
    return kept.dropDuplicates(list(PAIRS_KEYS))


def repeated(pairs: DataFrame) -> DataFrame:
    """The uids that several rows of a pairs table have; reads that column only."""
    return pairs.groupBy("uid").count().where("count > 1").select("uid")


def filtered_pairs(pairs: DataFrame, kept: DataFrame) -> DataFrame:
    """The pairs (with keys) that are kept, and their scores in place of columns of these names."""
    scores = [name for name in kept.columns if name not in PAIRS_KEYS]
    return pairs.drop(*scores).join(kept, on=list(PAIRS_KEYS), how="inner")


def first_copies(pairs: DataFrame) -> DataFrame:
    """One row of each key: the first by its columns of plain types. Shuffles all columns."""
    plain = (T.NumericType, T.StringType, T.BooleanType, T.DateType, T.TimestampType)
    order = [F.col(delta.quoted(f.name)) for f in pairs.schema if isinstance(f.dataType, plain)]
    window = Window.partitionBy(*PAIRS_KEYS).orderBy(*order)
    numbered = pairs.withColumn("__number", F.row_number().over(window))
    return numbered.where("__number = 1").drop("__number")


def write_filtered(
    keyed: DataFrame,
    columns: Sequence[str],
    selection: DataFrame,
    kept_rows: int,
    output: str,
    with_repetitions: bool = False,
) -> int:
    """Write the kept pairs: these columns, hashes and scores. Returns how many there are."""
    kept, several = kept_keys(selection, with_repetitions), repeated(keyed)
    if kept.join(several, on="uid", how="left_semi").isEmpty():
        filtered = filtered_pairs(keyed, _small(kept, kept_rows))
    else:  # a second scan for the few, so that only their images are shuffled to find copies
        once = kept.join(several, on="uid", how="left_anti")
        more = kept.join(several, on="uid", how="left_semi")
        copies = first_copies(filtered_pairs(keyed, _small(more, kept_rows)))
        filtered = filtered_pairs(keyed, _small(once, kept_rows)).unionByName(copies)
    added = ("image_sha", "caption_sha", *carried(selection, with_repetitions))
    own = [name for name in columns if name.lower() not in added]
    filtered = delta.storable(filtered.select(*map(delta.quoted, own), *added))
    # statistics of image bytes would be of no use: narrow columns only
    delta.overwrite(delta.commented(filtered, _COMMENTS), output, skipping=added)
    return delta.read(keyed.sparkSession, output).count()


def _small(kept: DataFrame, rows: int) -> DataFrame:
    # Spark takes a filtered table to be as large as the whole, and would shuffle the images.
    return F.broadcast(kept) if rows <= BROADCAST_ROWS else kept
