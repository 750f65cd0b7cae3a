"""Compare scores with ratings: ratings + scores -> an evaluation (table, JSON, Markdown, picture).

    mlm-filter evaluate --ratings R.jsonl --scores S --output evaluation/
    mlm-filter evaluate --ratings R.jsonl --scores starter=S --scores clip=C --output evaluation/ \\
                        --auc itm:alt+figure_caption/other_book --pairs-won odf:alt/altered

Ratings may come from a teacher model or from people. Every rated caption is compared, or counted
with the reason why not. A rerun replaces the files in the output folder.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import Field, model_validator
from pyspark.sql import SparkSession

from udfs.agreement.correlation import Agreement
from udfs.agreement.ranking import Ranking
from udfs.agreement.resampling import Bootstrap

from ..core import job_runner
from ..core.errors import UsageError
from ..core.settings import JobConfig, nearest
from ..tables import delta
from ..tables.ratings import Columns, Range, Ratings, read_ratings
from ..tables.runs import versions
from .comparison import (
    ALL,
    Check,
    Comparison,
    Finding,
    compare,
    comparisons,
    metrics_of,
    parse_check,
    parse_signal,
)
from .markdown import markdown, missing_scores
from .output_files import check_replaceable, write_files, write_table
from .rated_scores import RatedScores, Scores, join, name_and_ref, read_scores, scale_hint

_MAX_KINDS = 100


class EvaluateConfig(JobConfig):
    """Compare scores with ratings: correlations, calibration, ranking checks."""

    ratings: str = Field(
        description="table of uid, caption, metric, rating (or one column per metric), maybe kind:"
        " a path (Delta, Parquet, JSONL, CSV) or catalog.schema.table"
    )
    scores: list[str] = Field(
        min_length=1, description="table of scores, or name=table; repeat to compare several"
    )
    output: str = Field(description="folder to write the evaluation to")
    table: str | None = Field(None, description="table of results (default: OUTPUT/evaluation)")
    scorer: list[str] = Field(
        [], description="only this scorer of a table with several; may be repeated"
    )
    signal: list[str] = Field(
        [],
        description="also compare another column: metric=column (itm=clip_score); may be repeated",
    )
    auc: list[str] = Field(
        [],
        description="how well scores separate kinds: metric:kind+kind/kind+kind; may be repeated",
    )
    pairs_won: list[str] = Field(
        [],
        description="how often a kind beats another of its image: metric:kind/kind;"
        " may be repeated",
    )
    uid_column: str = Field("uid", description="column with the pair's key")
    caption_column: str | None = Field(
        None, description="column with the caption (default: caption)"
    )
    group_column: str | None = Field(
        None, description="column of the ratings that identifies the image (default: the uid)"
    )
    rating_low: float = Field(0, description="lowest possible rating; counts as 0")
    rating_high: float = Field(100, description="highest possible rating; counts as 100")
    resamples: int = Field(
        1000, ge=0, description="bootstrap resamples for the intervals; 0: no intervals"
    )
    confidence: float = Field(0.95, gt=0, lt=1, description="confidence of the intervals")
    seed: int = Field(0, ge=0, description="seed of the resamples")
    kendall_rows: int = Field(
        5000,
        ge=0,
        description="above this number of captions Kendall's tau, which is slow, gets no interval",
    )
    max_rows: int = Field(
        3_000_000, ge=1, description="maximum of captions times scorers, which the driver collects"
    )

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        if delta.is_uri(self.output):
            raise UsageError("--output is a folder of this machine (--table may be anywhere)")
        if not self.rating_low < self.rating_high:
            raise UsageError("--rating-low must be less than --rating-high")
        names = [name_and_ref(text)[0] for text in self.scores]
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"two --scores are called {name}; name them with name=table")
        self.checks()
        self.signals()
        return self

    def checks(self) -> list[Check]:
        """The ranking checks. Raises UsageError."""
        return [
            *(parse_check("--auc", text, False) for text in self.auc),
            *(parse_check("--pairs-won", text, True) for text in self.pairs_won),
        ]

    def signals(self) -> list[tuple[str, str]]:
        """(metric, column) of each --signal. Raises UsageError."""
        return [parse_signal(text) for text in self.signal]

    def bootstrap(self) -> Bootstrap:
        """The bootstrap that gives the intervals."""
        return Bootstrap(self.resamples, self.confidence, self.seed, kendall_rows=self.kendall_rows)

    @property
    def results_table(self) -> str:
        """Path or name of the table of results."""
        return self.table or str(Path(delta.path_of(self.output)) / "evaluation")


def run(spark: SparkSession, config: EvaluateConfig) -> dict[str, Any]:
    """Join, compare, print and write; return the summary."""
    checks, signals = config.checks(), config.signals()
    check_replaceable(spark, config.results_table)
    sources = [
        read_scores(spark, text, config.uid_column, config.caption_column, config.scorer)
        for text in config.scores
    ]
    columns = Columns(config.uid_column, config.caption_column, config.group_column)
    scale = Range(config.rating_low, config.rating_high)
    ratings = read_ratings(spark, config.ratings, columns, scale, bool(checks))
    if config.limit is not None:
        ratings = ratings.first(config.limit)
    metrics = metrics_of(ratings.metrics, checks)
    wanted = [_comparisons(source, metrics, signals) for source in sources]
    _check_signals(metrics, signals, sources)
    captions = _count_captions(ratings, sum(len(source.scorers) for source in sources), config)

    rated: list[RatedScores] = []
    findings: list[Finding] = []
    for source, compared in zip(sources, wanted, strict=True):
        needed = list(dict.fromkeys(comparison.column for comparison in compared))
        for scorer in join(ratings, source, needed, captions):
            if not rated:
                _check_kinds(scorer, checks)
            job_runner.say(f"{scorer.label}: {captions:,} captions joined, comparing ...")
            rated.append(scorer)
            findings += compare(scorer, compared, checks, config.bootstrap())
    if hint := scale_hint(rated[0].ratings.values(), scale):
        job_runner.say(f"note: {hint}")
    counts = dict(ratings.counts)
    if config.limit is None:  # else the counts include captions beyond the limit
        counts["averaged"] = counts["used"] - sum(
            int(np.isfinite(values).sum()) for values in rated[0].ratings.values()
        )
    intervals = f"{_percent(config.confidence)} intervals"
    text = markdown(findings, rated, counts, captions, intervals)
    job_runner.say("", *text.splitlines())
    summary: dict[str, Any] = {
        "ratings": config.ratings,
        "captions": captions,
        "ratings_by_use": counts,
        "scorers": [_scorer_summary(scorer, findings) for scorer in rated],
    }
    if config.dry_run:
        return summary | {"dry_run": True}
    run_id = job_runner.new_run_id()
    document = {"settings": config.model_dump(mode="json"), "versions": versions(), **summary}
    folder = write_files(config.output, run_id, document, findings, text, intervals)
    write_table(spark, config.results_table, run_id, findings, config.confidence)
    job_runner.say(
        f"written: {config.results_table}, and evaluation.json, .md and .png in {folder}"
    )
    return summary | {"run_id": run_id, "output": str(folder), "table": config.results_table}


def _comparisons(
    source: Scores, metrics: Sequence[str], signals: Sequence[tuple[str, str]]
) -> list[Comparison]:
    """The columns of one table to compare. Raises UsageError if there are none."""
    found = comparisons(metrics, source.columns, signals)
    if not found:
        guesses = [guess for metric in metrics if (guess := nearest(metric, source.columns))]
        hint = f" (did you mean {', '.join(dict.fromkeys(guesses))}? --signal compares any column)"
        raise UsageError(
            f"--scores {source.ref} has no column of numbers called {' or '.join(metrics)}; "
            f"it has {', '.join(source.columns) or 'none'}{hint if guesses else ''}"
        )
    missing = [m for m in metrics if not any(c.metric == m for c in found)]
    if missing:
        job_runner.say(f"{source.name}: no column for {', '.join(missing)}: not compared")
    return found


def _check_signals(
    metrics: Sequence[str], signals: Sequence[tuple[str, str]], sources: Sequence[Scores]
) -> None:
    """Raise UsageError for signals with an unknown metric or column."""
    columns = list(dict.fromkeys(column for source in sources for column in source.columns))
    for metric, column in signals:
        for what, name, names in (("metric", metric, metrics), ("column", column, columns)):
            if name not in names:
                guess = nearest(name, names)
                hint = f"did you mean {guess}?" if guess else f"choose from {', '.join(names)}"
                raise UsageError(f"--signal {metric}={column}: no {what} {name}; {hint}")


def _check_kinds(rated: RatedScores, checks: Sequence[Check]) -> None:
    """Raise UsageError for checks of unknown kinds, or a column `kind` with other content."""
    kinds = sorted({kind for kind in rated.kinds if kind is not None})
    if len(kinds) > _MAX_KINDS or ALL in kinds:
        problem = (
            f"has the value {ALL!r}, which means all kinds"
            if ALL in kinds
            else f"has {len(kinds):,} values"
        )
        raise UsageError(f"--ratings: the column kind {problem}; rename it or its values")
    for check in checks:
        option = "--pairs-won" if check.paired else "--auc"
        for kind in (*check.first, *check.second):
            if kind not in kinds:
                guess = nearest(kind, kinds)
                hint = (
                    f"did you mean {guess}?"
                    if guess
                    else f"the kinds are {', '.join(kinds) or 'none'}"
                )
                raise UsageError(f"{option} {check.metric}:{check.kinds}: no kind {kind}; {hint}")


def _count_captions(ratings: Ratings, scorers: int, config: EvaluateConfig) -> int:
    """The number of captions. Raises UsageError if there are none, or too many for the driver."""
    captions = ratings.captions.count()
    if captions * scorers > config.max_rows:
        raise UsageError(
            f"{captions:,} captions of {scorers} scorers are more than --max-rows "
            f"{config.max_rows:,}, which the driver collects; use --limit to take fewer"
        )
    if not captions:
        raise UsageError(f"--ratings {config.ratings}: there is no caption with a uid")
    return captions


def _scorer_summary(rated: RatedScores, findings: Sequence[Finding]) -> dict[str, Any]:
    """One scorer's part of the line of JSON."""
    missing = missing_scores(rated)
    own_findings = [f for f in findings if f.rated is rated]
    summary: dict[str, Any] = {
        "scorer": rated.label,
        "scores": rated.scores,
        "scorer_id": rated.scorer,
        "scored": len(rated.statuses) - sum(missing.values()),
        "without_scores": missing,
        "several_rows": rated.repeated,
        "spearman": {
            f"{f.comparison.metric} {f.comparison.reading}": f.outcome.spearman.value
            for f in own_findings
            if isinstance(f.outcome, Agreement) and f.kind == ALL
        },
    }
    checks = {
        f"{f.statistics} {f.comparison.metric}:{f.kind} {f.comparison.reading}": f.outcome.share
        for f in own_findings
        if isinstance(f.outcome, Ranking)
    }
    if checks:
        summary["checks"] = {name: share.value for name, share in checks.items()}
    return summary


def _percent(share: float) -> str:
    return f"{100 * share:.10g} %"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; return its exit code."""
    return job_runner.main("evaluate", EvaluateConfig, run, argv)
