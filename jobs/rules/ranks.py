"""rank(x): the exact place of each row among all, without bringing the table into one partition.

Values are cut into buckets at approximate quantiles; a value that is itself a bound has a bucket of
its own, which is split by the leading bits of the hash, as a single value may have most of the
rows. Buckets are counted exactly, so that a row's place is its place in its bucket behind all rows
of the buckets before. Were the quantiles bad, buckets would be uneven, the ranks the same.
"""

from collections.abc import Sequence
from itertools import accumulate

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from .spark_columns import number
from .syntax_tree import Rank
from .table_statistics import Answers, place, refuse_twins, takes_part

BOUNDS = 64
_HASH_BITS = 6


def with_rank(frame: DataFrame, rank: Rank, answers: Answers, name: str) -> DataFrame:
    """``frame``, stored, with the column ``name``: the share of rows with a value that are worse.

    Highest first, ties by xxhash64(uid), then the key: of N rows, the best has (N - 1) / N, the
    worst 0, each a rank of its own. Null where there is no value.
    """
    value = number(rank.part, answers)
    depth = F.when(takes_part(), F.when(value == 0, F.lit(0.0)).otherwise(-value))
    frame = frame.withColumns({"__depth": depth, "__hash": F.xxhash64(F.col("uid").cast("string"))})
    has_value = F.col("__depth").isNotNull()
    shares = [n / BOUNDS for n in range(BOUNDS + 1)]
    (row,) = frame.agg(F.percentile_approx("__depth", shares, 10_000)).collect()
    bucket, is_bound = _bucket(F.col("__depth"), sorted(set(row[0] or ())))
    spread = is_bound | ~has_value
    split = F.when(spread, F.shiftright("__hash", 64 - _HASH_BITS)).otherwise(0)
    frame = frame.withColumns({"__bucket": F.when(has_value, bucket).otherwise(-1)})
    frame = frame.withColumns({"__split": split})
    buckets = ["__bucket", "__split"]
    counted = frame.where(has_value).groupBy(*buckets).count().collect()
    counts = sorted(map(tuple, counted))
    ends = list(accumulate(count for *_, count in counts))
    before = [(b, s, end - n) for (b, s, n), end in zip(counts, ends, strict=True)]
    schema = "of_bucket int, of_split long, __before long"
    starts = frame.sparkSession.createDataFrame(before, schema)
    window = Window.partitionBy(*buckets).orderBy("__depth", "__hash", "__place")
    frame = frame.withColumn("__place", place(F.col("__depth")))
    twin = F.col("__place") == F.lag("__place").over(window)
    frame = frame.withColumns({"__number": F.row_number().over(window), "__twin": twin})
    same = [F.col(key) == F.col(f"of_{key.strip('_')}") for key in buckets]
    frame = frame.join(F.broadcast(starts), on=same, how="left")
    rows = ends[-1] if ends else 0
    worse = (F.lit(rows) - F.col("__before") - F.col("__number")).cast("double")
    frame = frame.withColumn(name, F.when(has_value, worse / F.lit(float(rows or 1))))
    marks = ["__depth", "__hash", *buckets, "__place", "__number", "__before"]
    frame = answers.hold(frame.drop(*marks, "of_bucket", "of_split"))
    twins = frame.where(F.col("__twin") & F.col(name).isNotNull()).select("uid").take(1)
    refuse_twins(len(twins), twins[0]["uid"] if twins else None)
    return frame.drop("__twin")


def _bucket(depth: Column, bounds: Sequence[float]) -> tuple[Column, Column]:
    """The bucket of a value, growing with it, and whether the value is a bound.

    Bucket 2i holds what lies between the bounds before and at i, bucket 2i + 1 the bound itself.
    """

    def below(first: int, last: int) -> Column:  # a search tree of comparisons
        if first == last:
            return F.lit(2 * first)
        middle = (first + last) // 2
        edge = F.lit(bounds[middle])
        at_or_above = F.when(depth == edge, F.lit(2 * middle + 1)).otherwise(
            below(middle + 1, last)
        )
        return F.when(depth < edge, below(first, middle)).otherwise(at_or_above)

    bucket = below(0, len(bounds))
    return bucket, bucket % 2 == 1
