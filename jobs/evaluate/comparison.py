"""Which scores are compared with which ratings, and the results: plain arrays in, findings out."""

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
from .rated_scores import RatedScores

ALL = "all"
"""The kind that stands for the captions of all kinds."""

SIGNALS = {"clip_score": ("itm", "odf")}
"""Columns that are compared if a table has them, and the metrics whose ratings they meet."""

_CHECK_PATTERN = re.compile(r"\s*([^:/]+?)\s*:\s*([^/]+?)\s*/\s*([^/]+?)\s*")


@dataclass(frozen=True)
class Comparison:
    """A column of scores, and the metric whose ratings it is compared with.

    `same_scale`: both are 0..100, so that their difference has a meaning.
    """

    metric: str
    column: str
    same_scale: bool

    @property
    def reading(self) -> str:
        """How the column is read from the model: score, mode, or another column's own name."""
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
        """The kinds as in the option: `kind+kind/kind+kind`."""
        return f"{'+'.join(self.first)}/{'+'.join(self.second)}"


@dataclass(frozen=True)
class Finding:
    """The result of one comparison for one kind of captions, or of one check."""

    rated: RatedScores
    comparison: Comparison
    kind: str
    outcome: Agreement | Ranking
    paired: bool = False

    @property
    def statistics(self) -> str:
        """The statistics that were computed: agreement, auc or pairs_won."""
        if isinstance(self.outcome, Agreement):
            return "agreement"
        return "pairs_won" if self.paired else "auc"


def parse_check(option: str, text: str, paired: bool) -> Check:
    """Read `metric:kind+kind/kind+kind`. Raises UsageError."""
    parsed = _CHECK_PATTERN.fullmatch(text)
    if parsed:
        first, second = (
            tuple(filter(None, map(str.strip, g.split("+")))) for g in parsed.groups()[1:]
        )
        if first and second and not set(first) & set(second):
            return Check(parsed[1].lower(), first, second, paired)
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
    """What to compare: each metric's own column, its mode, and signals, as far as in `columns`."""
    default_signals = [(metric, column) for column, of in SIGNALS.items() for metric in of]
    compared = []
    for metric in metrics:
        own = (metric, f"{metric}_mode")
        others = dict.fromkeys(column for m, column in (*default_signals, *signals) if m == metric)
        compared += [Comparison(metric, column, True) for column in own if column in columns]
        compared += [
            Comparison(metric, column, False)
            for column in others
            if column in columns and column not in own
        ]
    return compared


def metrics_of(rated_metrics: Sequence[str], checks: Sequence[Check]) -> list[str]:
    """The metrics with ratings or checks, in the paper's order, then by name."""
    named = {*rated_metrics, *(check.metric for check in checks)}
    return [*(m for m in METRICS if m in named), *sorted(named - set(METRICS))]


def compare(
    rated: RatedScores, wanted: Sequence[Comparison], checks: Sequence[Check], bootstrap: Bootstrap
) -> Iterator[Finding]:
    """All findings on one scorer: per comparison all kinds, then each kind, then the checks."""
    kinds = sorted({kind for kind in rated.kinds if kind is not None})
    for comparison in wanted:
        values = rated.values[comparison.column]
        ratings = rated.ratings.get(comparison.metric)
        if ratings is not None:
            for kind in (ALL, *kinds):
                # Captions without a rating say nothing about this metric.
                chosen = np.isfinite(ratings) & (kind == ALL or rated.kinds == kind)
                result = agreement(
                    values[chosen],
                    ratings[chosen],
                    rated.images[chosen],
                    bootstrap,
                    comparison.same_scale,
                )
                yield Finding(rated, comparison, kind, result)
        for check in checks:
            if check.metric == comparison.metric:
                first, second = (np.isin(rated.kinds, k) for k in (check.first, check.second))
                function = pairs_won if check.paired else auc
                ranking = function(values, first, second, rated.images, bootstrap)
                yield Finding(rated, comparison, check.kinds, ranking, check.paired)
