"""rank(x): the exact rank of each row among all, without bringing the table into one partition.

Approximate quantiles divide the values into buckets. A value that is itself a bound has a bucket of
its own, split by the leading bits of the hash, since a single value may have most of the rows.
Buckets are counted exactly, so a row's rank is its rank in its bucket plus the rows of all buckets
before. Bad quantiles make the buckets uneven, but never change the ranks.
"""

from collections.abc import Sequence
from itertools import accumulate

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from .spark_columns import number
from .syntax_tree import Rank
from .table_statistics import TableStatistics, is_scored, refuse_duplicates, sort_key

BOUNDS = 64
_HASH_BITS = 6


def with_rank(frame: DataFrame, rank: Rank, statistics: TableStatistics, name: str) -> DataFrame:
    """``frame``, persisted, with a column ``name``: the share of rows with a value that are worse.

    Highest first, ties by xxhash64(uid), then the key. Of N rows, the best has (N - 1) / N and the
    worst 0; no two have the same rank. Null where there is no value.
    """
    value = number(rank.part, statistics)
    negated_value = F.when(is_scored(), F.when(value == 0, F.lit(0.0)).otherwise(-value))
    frame = frame.withColumns(
        {"__negated_value": negated_value, "__hash": F.xxhash64(F.col("uid").cast("string"))}
    )
    has_value = F.col("__negated_value").isNotNull()
    shares = [n / BOUNDS for n in range(BOUNDS + 1)]
    (row,) = frame.agg(F.percentile_approx("__negated_value", shares, 10_000)).collect()
    bucket, is_bound = _bucket(F.col("__negated_value"), sorted(set(row[0] or ())))
    needs_split = is_bound | ~has_value
    split = F.when(needs_split, F.shiftright("__hash", 64 - _HASH_BITS)).otherwise(0)
    frame = frame.withColumns({"__bucket": F.when(has_value, bucket).otherwise(-1)})
    frame = frame.withColumns({"__split": split})
    buckets = ["__bucket", "__split"]
    counted = frame.where(has_value).groupBy(*buckets).count().collect()
    counts = sorted(map(tuple, counted))
    ends = list(accumulate(count for *_, count in counts))
    offsets = [(b, s, end - n) for (b, s, n), end in zip(counts, ends, strict=True)]
    schema = "of_bucket int, of_split long, __offset long"
    starts = frame.sparkSession.createDataFrame(offsets, schema)
    window = Window.partitionBy(*buckets).orderBy("__negated_value", "__hash", "__sort_key")
    frame = frame.withColumn("__sort_key", sort_key(F.col("__negated_value")))
    is_duplicate = F.col("__sort_key") == F.lag("__sort_key").over(window)
    frame = frame.withColumns(
        {"__number": F.row_number().over(window), "__is_duplicate": is_duplicate}
    )
    same = [F.col(key) == F.col(f"of_{key.strip('_')}") for key in buckets]
    frame = frame.join(F.broadcast(starts), on=same, how="left")
    rows = ends[-1] if ends else 0
    worse = (F.lit(rows) - F.col("__offset") - F.col("__number")).cast("double")
    frame = frame.withColumn(name, F.when(has_value, worse / F.lit(float(rows or 1))))
    helper_columns = ["__negated_value", "__hash", *buckets, "__sort_key", "__number", "__offset"]
    frame = statistics.persist(frame.drop(*helper_columns, "of_bucket", "of_split"))
    duplicates = (
        frame.where(F.col("__is_duplicate") & F.col(name).isNotNull()).select("uid").take(1)
    )
    refuse_duplicates(len(duplicates), duplicates[0]["uid"] if duplicates else None)
    return frame.drop("__is_duplicate")


def _bucket(negated_value: Column, bounds: Sequence[float]) -> tuple[Column, Column]:
    """The bucket of a value, in the order of values, and whether the value is a bound.

    Bucket 2i holds the values between bounds i - 1 and i, bucket 2i + 1 those equal to bound i.
    """

    def below(first: int, last: int) -> Column:  # a search tree of comparisons
        if first == last:
            return F.lit(2 * first)
        middle = (first + last) // 2
        bound = F.lit(bounds[middle])
        at_or_above = F.when(negated_value == bound, F.lit(2 * middle + 1)).otherwise(
            below(middle + 1, last)
        )
        return F.when(negated_value < bound, below(first, middle)).otherwise(at_or_above)

    bucket = below(0, len(bounds))
    return bucket, bucket % 2 == 1
