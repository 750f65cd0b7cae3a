"""The evaluation table: one row per scorer, column of scores, metric, kind and statistics."""

from __future__ import annotations

from typing import Any

from pyspark.sql import types as T

from udfs.agreement.correlation import Agreement, Decile
from udfs.agreement.resampling import Estimate, finite_or_none

from ..tables.delta import described
from .comparison import Finding


def _estimate(name: str, comment: str) -> list[T.StructField]:
    ends = (("low", "lower"), ("high", "upper"))
    return [
        described(name, T.DoubleType(), comment),
        *(
            described(f"{name}_{end}", T.DoubleType(), f"{name}: {which} end of its interval")
            for end, which in ends
        ),
    ]


_DECILES = T.ArrayType(
    T.StructType(
        [
            T.StructField("decile", T.IntegerType()),
            T.StructField("n", T.LongType()),
            *(
                T.StructField(name, T.DoubleType())
                for name in ("score", "rating", "lowest", "highest")
            ),
        ]
    )
)

EVALUATION = T.StructType(
    [
        described("scorer", T.StringType(), "the scorer's name in this evaluation"),
        described("scores", T.StringType(), "the table that its scores are from"),
        described("scorer_id", T.StringType(), "its name in that table's column scorer, or empty"),
        described("score_column", T.StringType(), "the column of that table that is judged"),
        described("metric", T.StringType(), "the metric whose ratings it is judged by"),
        described(
            "kind", T.StringType(), "how the captions were made: all, a kind, or kinds/kinds"
        ),
        described("statistics", T.StringType(), "agreement, auc (of kinds/kinds) or pairs_won"),
        described("n", T.LongType(), "captions with score and rating (checks: of the first kinds)"),
        described("n_second", T.LongType(), "checks: captions of the second kinds"),
        described("left_out", T.LongType(), "captions of the kind that have a rating and no score"),
        described("images", T.LongType(), "images of the captions that count: what is resampled"),
        *_estimate("pearson", "Pearson's correlation, -1..1"),
        *_estimate("spearman", "Spearman's rank correlation, -1..1"),
        *_estimate("kendall", "Kendall's tau-b, -1..1"),
        *_estimate("mean_absolute_error", "points of 100; null for a column on another scale"),
        *_estimate("share", "checks: how often the first is above the second, 0..1"),
        described("calibration", _DECILES, "mean score and mean rating by decile of the score"),
        described("resamples", T.LongType(), "behind each interval"),
        described("confidence", T.DoubleType(), "share of the resamples within an interval"),
        described("reason", T.StringType(), "why something is null"),
        described("run_id", T.StringType(), "the run that wrote the row"),
        described("evaluated_at", T.TimestampType(), "when"),
    ]
)


def record(finding: Finding) -> dict[str, Any]:
    """A finding as a row of the table, without the columns that all rows of a run share."""
    rated, comparison, outcome = finding.rated, finding.comparison, finding.outcome
    row: dict[str, Any] = {
        "scorer": rated.label,
        "scores": rated.scores,
        "scorer_id": rated.scorer,
        "score_column": comparison.column,
        "metric": comparison.metric,
        "kind": finding.kind,
        "statistics": finding.statistics,
        "left_out": outcome.left_out,
        "images": outcome.images,
        "resamples": outcome.resamples,
        "reason": outcome.reason,
    }
    if isinstance(outcome, Agreement):
        row |= {"n": outcome.n, "calibration": [_decile(d) for d in outcome.calibration]}
        row |= _columns("pearson", outcome.pearson)
        row |= _columns("spearman", outcome.spearman)
        row |= _columns("kendall", outcome.kendall)
        return row | _columns("mean_absolute_error", outcome.error)
    return row | {"n": outcome.first, "n_second": outcome.second} | _columns("share", outcome.share)


def _columns(name: str, estimate: Estimate) -> dict[str, float | None]:
    return {
        name: estimate.value,
        f"{name}_low": estimate.low,
        f"{name}_high": estimate.high,
    }


def _decile(decile: Decile) -> dict[str, float | None]:
    return {
        "decile": decile.decile,
        "n": decile.n,
        "score": finite_or_none(decile.score),
        "rating": finite_or_none(decile.rating),
        "lowest": decile.lowest,
        "highest": decile.highest,
    }
