"""What the parts of rules that depend on other rows came to, and the order in which rows are best.

The order is total: by value, then by xxhash64(uid), then by uid and the rest of the key, so that it
depends on the rows alone.
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
class Cut:
    """Where a ``top`` or ``bottom`` ends: everything beyond ``value`` is in, and some at it."""

    scored: int  # N: rows that take part and have a value
    taken: int  # k, exactly
    value: float | None  # the last value that is taken; None where nothing is taken
    ties: int = 0  # rows at that value
    ties_taken: int = 0
    last_tie: Row | None = None  # hash and KEYS of the last tie taken, where not all are


@dataclass(frozen=True)
class Quota:
    """Where a ``top`` or ``bottom`` ends in each group.

    Attributes:
        column: of the frame: the `place` of the last row of the row's group that is taken, null
            where none is.
        groups: how many there are.
        scored: rows that take part and have a value.
        taken: rows taken in all groups together.
        more: of these, those that were not in before (for a minimum).
    """

    column: str
    groups: int
    scored: int
    taken: int
    more: int


@dataclass
class Answers:
    """All of it, for the rules of one run.

    Attributes:
        quantiles: the value, None where there are no values.
        ranks: the column of the frame that holds the ranks.
        cuts: of best fractions of the whole table.
        quotas: of best fractions of groups.
        minima: of their `at least`.
        held: frames that were stored on the way.
    """

    quantiles: dict[Quantile, float | None] = field(default_factory=dict)
    ranks: dict[Rank, str] = field(default_factory=dict)
    cuts: dict[Best | Datacomp, Cut] = field(default_factory=dict)
    quotas: dict[Best, Quota] = field(default_factory=dict)
    minima: dict[Best, Quota] = field(default_factory=dict)
    held: list[DataFrame] = field(default_factory=list)

    def hold(self, frame: DataFrame) -> DataFrame:
        """``frame``, computed once, and from then on read from the executors' disks."""
        held = frame.persist(StorageLevel.DISK_ONLY)
        self.held.append(held)
        return held

    def release(self) -> None:
        """Free what was stored."""
        while self.held:
            self.held.pop().unpersist()


def takes_part() -> Column:
    """True for rows that carry scores."""
    return F.coalesce(F.col("status").isin(*SCORED), F.lit(False))


def tie_order() -> list[Column]:
    """The columns `hash`, `uid` and the rest of the key, all as text but the hash."""
    uid, *rest = (F.col(name).cast("string").alias(name) for name in KEYS)
    return [F.xxhash64(uid).alias("hash"), uid, *rest]


def place(depth: Column) -> Column:
    """A row's place: a struct that is the smaller the better. Null parts of a key come first."""
    return F.struct(depth.alias("depth"), *tie_order())


def refuse_twins(twins: int, uid: Any) -> None:
    """Refuse rows that no order can tell apart."""
    if twins:
        raise UsageError(
            f"the scores table holds the same scored row more than once (uid {uid!r}):"
            " its key is (uid, image_sha, caption_sha, copy) for each scorer"
        )
