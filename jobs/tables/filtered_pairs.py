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
"""Up to this many kept rows (some 20 MB) are broadcast; with more, Spark chooses the join."""

_COMMENTS = T.StructType([*SCORES_TABLE, REPETITIONS])


def score_columns(selection: DataFrame, with_repetitions: bool) -> list[str]:
    """The columns added to a kept pair: the four metrics; clip_score and repetitions if present."""
    names = (*METRICS, "clip_score", *(["repetitions"] if with_repetitions else []))
    return [name for name in names if name in selection.columns]


def kept_keys(selection: DataFrame, with_repetitions: bool = False) -> DataFrame:
    """Keys and scores of the kept rows, each key once."""
    columns = (*PAIRS_KEYS, *score_columns(selection, with_repetitions))
    return selection.where("keep").select(*columns).dropDuplicates(list(PAIRS_KEYS))


def repeated_uids(pairs: DataFrame) -> DataFrame:
    """The uids that occur in several rows of a pairs table; reads that column only."""
    return pairs.groupBy("uid").count().where("count > 1").select("uid")


def filtered_pairs(pairs: DataFrame, keys: DataFrame) -> DataFrame:
    """The kept pairs (with keys). Their scores replace columns of the same names."""
    scores = [name for name in keys.columns if name not in PAIRS_KEYS]
    return pairs.drop(*scores).join(keys, on=list(PAIRS_KEYS), how="inner")


def first_copies(pairs: DataFrame) -> DataFrame:
    """One row for each key: the first by its columns of plain types. Shuffles all columns."""
    plain = (T.NumericType, T.StringType, T.BooleanType, T.DateType, T.TimestampType)
    order = [F.col(delta.quoted(f.name)) for f in pairs.schema if isinstance(f.dataType, plain)]
    window = Window.partitionBy(*PAIRS_KEYS).orderBy(*order)
    numbered = pairs.withColumn("__number", F.row_number().over(window))
    return numbered.where("__number = 1").drop("__number")


def write_filtered(
    keyed: DataFrame,
    columns: Sequence[str],
    selection: DataFrame,
    kept_count: int,
    output: str,
    with_repetitions: bool = False,
) -> int:
    """Write the kept pairs with these columns, hashes and scores. Returns how many there are."""
    keys, repeated = kept_keys(selection, with_repetitions), repeated_uids(keyed)
    if keys.join(repeated, on="uid", how="left_semi").isEmpty():
        filtered = filtered_pairs(keyed, _broadcast_if_small(keys, kept_count))
    else:  # a second scan for the few, so that only their images are shuffled to find copies
        unique = keys.join(repeated, on="uid", how="left_anti")
        ambiguous = keys.join(repeated, on="uid", how="left_semi")
        copies = first_copies(filtered_pairs(keyed, _broadcast_if_small(ambiguous, kept_count)))
        filtered = filtered_pairs(keyed, _broadcast_if_small(unique, kept_count))
        filtered = filtered.unionByName(copies)
    added = ("image_sha", "caption_sha", *score_columns(selection, with_repetitions))
    own = [name for name in columns if name.lower() not in added]
    filtered = delta.storable(filtered.select(*map(delta.quoted, own), *added))
    # statistics for narrow columns only: those of image bytes would be of no use
    delta.overwrite(delta.commented(filtered, _COMMENTS), output, skipping=added)
    return delta.read(keyed.sparkSession, output).count()


def _broadcast_if_small(keys: DataFrame, rows: int) -> DataFrame:
    # Spark assumes that a filtered table is as large as the whole, and would shuffle the images.
    return F.broadcast(keys) if rows <= BROADCAST_ROWS else keys
