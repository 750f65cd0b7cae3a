"""What rules need to know of a whole table: cutoffs, quotas, quantiles, ranks, order of rows.

The order of rows is total: by value, then by xxhash64(uid), then by uid and the rest of the key. So
it depends on the rows alone.
"""

from dataclasses import dataclass, field
from typing import Any

from pyspark import StorageLevel
from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from udfs.scoring.results import SCORED

from ..core.errors import UsageError
from ..tables.scores import KEYS
from .syntax_tree import Best, Datacomp, Quantile, Rank


@dataclass(frozen=True)
class Cutoff:
    """Where a ``top`` or ``bottom`` ends: rows beyond ``value`` are taken, and some of its ties."""

    scored: int  # N: scored rows that have a value
    taken: int  # k, exactly
    value: float | None  # the last value taken; None if nothing is taken
    ties: int = 0  # rows at that value
    ties_taken: int = 0
    last_tie: Row | None = None  # hash and KEYS of the last tie taken, unless all are taken


@dataclass(frozen=True)
class Quota:
    """Where a ``top`` or ``bottom`` ends in each group.

    Attributes:
        column: the column of the frame with the `sort_key` of the last row taken in the row's
            group; null if none is taken.
        groups: how many groups there are.
        scored: scored rows that have a value.
        taken: rows taken in all groups together.
        added: for a minimum, how many of these were not taken before.
    """

    column: str
    groups: int
    scored: int
    taken: int
    added: int


@dataclass
class TableStatistics:
    """The statistics that the rules of one run need.

    Attributes:
        quantiles: the value of each quantile; None if there are no values.
        ranks: the column of the frame that holds each rank.
        cutoffs: of best fractions of the whole table.
        quotas: of best fractions of groups.
        minima: of the `at least` parts of best fractions.
        persisted: frames to unpersist in the end.
    """

    quantiles: dict[Quantile, float | None] = field(default_factory=dict)
    ranks: dict[Rank, str] = field(default_factory=dict)
    cutoffs: dict[Best | Datacomp, Cutoff] = field(default_factory=dict)
    quotas: dict[Best, Quota] = field(default_factory=dict)
    minima: dict[Best, Quota] = field(default_factory=dict)
    persisted: list[DataFrame] = field(default_factory=list)

    def persist(self, frame: DataFrame) -> DataFrame:
        """``frame``, computed once and then read from the executors' disks."""
        frame = frame.persist(StorageLevel.DISK_ONLY)
        self.persisted.append(frame)
        return frame

    def release(self) -> None:
        """Unpersist all frames."""
        while self.persisted:
            self.persisted.pop().unpersist()


def is_scored() -> Column:
    """True for rows that have scores, by their status; never null."""
    return F.coalesce(F.col("status").isin(*SCORED), F.lit(False))


def tie_order() -> list[Column]:
    """The columns that order ties: `hash`, then `uid` and the rest of the key as text."""
    uid, *rest = (F.col(name).cast("string").alias(name) for name in KEYS)
    return [F.xxhash64(uid).alias("hash"), uid, *rest]


def sort_key(negated_value: Column) -> Column:
    """A struct that orders rows, best first. Null parts of a key come first."""
    return F.struct(negated_value.alias("negated_value"), *tie_order())


def refuse_duplicates(count: int, uid: Any) -> None:
    """Raise UsageError if there are rows that no order can tell apart; ``uid`` is an example."""
    if count:
        raise UsageError(
            f"the scores table holds the same scored row more than once (uid {uid!r}):"
            " its key is (uid, image_sha, caption_sha, copy) for each scorer"
        )
