"""What is compared with what, and what comes of it: plain arrays in, findings out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from udfs.agreement.correlation import Agreement, agreement
from udfs.agreement.ranking import Ranking, auc, pairs_won
from udfs.agreement.resampling import Bootstrap
from udfs.core.metrics import METRICS

from ..core.errors import UsageError
from .rated_scores import Rated

ALL = "all"
"""The kind that stands for the captions of all kinds."""

SIGNALS = {"clip_score": ("itm", "odf")}
"""Columns that are compared where they are there, and the metrics that they are compared with."""

_CHECK = re.compile(r"\s*([^:/]+?)\s*:\s*([^/]+?)\s*/\s*([^/]+?)\s*")


@dataclass(frozen=True)
class Comparison:
    """A column of scores, and the metric whose ratings it is compared with.

    `same_scale`: whether both are 0..100, so that their difference means something.
    """

    metric: str
    column: str
    same_scale: bool

    @property
    def reading(self) -> str:
        """What the column is to its metric: score, mode, or the column's own name."""
        return {self.metric: "score", f"{self.metric}_mode": "mode"}.get(self.column, self.column)


@dataclass(frozen=True)
class Check:
    """A ranking check: captions of the kinds `first` should score above those of `second`.

    `paired`: only within one image.
    """

    metric: str
    first: tuple[str, ...]
    second: tuple[str, ...]
    paired: bool

    @property
    def kinds(self) -> str:
        """As the option spells them."""
        return f"{'+'.join(self.first)}/{'+'.join(self.second)}"


@dataclass(frozen=True)
class Finding:
    """What one comparison gave for one kind of captions, or one check."""

    rated: Rated
    comparison: Comparison
    kind: str
    outcome: Agreement | Ranking
    paired: bool = False

    @property
    def statistics(self) -> str:
        """What was computed: agreement, auc or pairs_won."""
        if isinstance(self.outcome, Agreement):
            return "agreement"
        return "pairs_won" if self.paired else "auc"


def parse_check(option: str, text: str, paired: bool) -> Check:
    """Read `metric:kind+kind/kind+kind`. Raises UsageError."""
    found = _CHECK.fullmatch(text)
    if found:
        first, second = (
            tuple(filter(None, map(str.strip, g.split("+")))) for g in found.groups()[1:]
        )
        if first and second and not set(first) & set(second):
            return Check(found[1].lower(), first, second, paired)
    raise UsageError(f"{option} {text!r}: expected metric:kind+kind/kind+kind, e.g. itm:alt/junk")


def parse_signal(text: str) -> tuple[str, str]:
    """Read `metric=column`. Raises UsageError."""
    metric, equals, column = (part.strip() for part in text.partition("="))
    if not (metric and equals and column):
        raise UsageError(f"--signal {text!r}: expected metric=column, e.g. itm=clip_score")
    return metric.lower(), column


def comparisons(
    metrics: Sequence[str], columns: Sequence[str], signals: Sequence[tuple[str, str]]
) -> list[Comparison]:
    """What to compare: each metric's own column, its mode, and signals, as far as `columns` go."""
    usual = [(metric, column) for column, of in SIGNALS.items() for metric in of]
    found = []
    for metric in metrics:
        own = (metric, f"{metric}_mode")
        others = dict.fromkeys(column for m, column in (*usual, *signals) if m == metric)
        found += [Comparison(metric, column, True) for column in own if column in columns]
        found += [
            Comparison(metric, column, False)
            for column in others
            if column in columns and column not in own
        ]
    return found


def metrics_of(rated: Sequence[str], checks: Sequence[Check]) -> list[str]:
    """The metrics with ratings or checks, in the paper's order, then by name."""
    named = {*rated, *(check.metric for check in checks)}
    return [*(m for m in METRICS if m in named), *sorted(named - set(METRICS))]


def compare(
    rated: Rated, wanted: Sequence[Comparison], checks: Sequence[Check], bootstrap: Bootstrap
) -> Iterator[Finding]:
    """All findings about one scorer: for each comparison all kinds, then each kind, then checks."""
    kinds = sorted({kind for kind in rated.kinds if kind is not None})
    for comparison in wanted:
        values = rated.values[comparison.column]
        ratings = rated.ratings.get(comparison.metric)
        if ratings is not None:
            for kind in (ALL, *kinds):
                # Of the captions that are rated: the others say nothing of this metric.
                chosen = np.isfinite(ratings) & (kind == ALL or rated.kinds == kind)
                found = agreement(
                    values[chosen],
                    ratings[chosen],
                    rated.images[chosen],
                    bootstrap,
                    comparison.same_scale,
                )
                yield Finding(rated, comparison, kind, found)
        for check in checks:
            if check.metric == comparison.metric:
                first, second = (np.isin(rated.kinds, k) for k in (check.first, check.second))
                function = pairs_won if check.paired else auc
                ranking = function(values, first, second, rated.images, bootstrap)
                yield Finding(rated, comparison, check.kinds, ranking, check.paired)
