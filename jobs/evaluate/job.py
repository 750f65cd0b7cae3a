"""Compare scores with ratings: ratings + scores -> an evaluation (table, JSON, Markdown, picture).

    mlm-filter evaluate --ratings R.jsonl --scores S --output evaluation/
    mlm-filter evaluate --ratings R.jsonl --scores starter=S --scores clip=C --output evaluation/ \\
                        --auc itm:alt+figure_caption/other_book --pairs-won odf:alt/altered

Ratings may be a teacher's or people's. Every rated caption is accounted for: compared, or counted
with what is missing. A rerun replaces what is in the output folder.
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
from .markdown import lost, markdown
from .output_files import check_replaceable, write_files, write_table
from .rated_scores import Rated, Scores, join, name_and_ref, read_scores

_MOST_KINDS = 100


class EvaluateConfig(JobConfig):
    """Compare scores with ratings: correlations, calibration, ranking checks."""

    ratings: str = Field(
        description="table of uid, caption, metric, rating (or a column a metric), maybe kind:"
        " a path (Delta, Parquet, JSONL, CSV) or catalog.schema.table"
    )
    scores: list[str] = Field(
        min_length=1, description="table of scores, or name=table; repeat to compare several"
    )
    output: str = Field(description="folder to write the evaluation to")
    table: str | None = Field(None, description="table of results, if not OUTPUT/evaluation")
    scorer: list[str] = Field([], description="only this scorer of a table with several; repeat")
    signal: list[str] = Field(
        [], description="compare another column too: metric=column, e.g. itm=clip_score; repeat"
    )
    auc: list[str] = Field(
        [], description="how well kinds are told apart: metric:kind+kind/kind+kind; repeat"
    )
    pairs_won: list[str] = Field(
        [], description="how often a kind is above another of its image: metric:kind/kind; repeat"
    )
    uid_column: str = Field("uid", description="column with the pair's key")
    caption_column: str | None = Field(
        None, description="column with the caption, if not called caption"
    )
    group_column: str | None = Field(
        None, description="column of the ratings that names the image, if the uid does not"
    )
    rating_low: float = Field(0, description="lowest rating possible; taken as 0")
    rating_high: float = Field(100, description="highest rating possible; taken as 100")
    resamples: int = Field(1000, ge=0, description="for the intervals; 0 for none")
    confidence: float = Field(0.95, gt=0, lt=1, description="of the intervals")
    seed: int = Field(0, ge=0, description="of the resamples")
    kendall_rows: int = Field(
        5000, ge=0, description="with more captions Kendall's tau has no interval: it is quadratic"
    )
    max_rows: int = Field(
        3_000_000, ge=1, description="captions times scorers that may be collected on the driver"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if delta.is_uri(self.output):
            raise UsageError("--output is a folder of this machine (--table may be anywhere)")
        if not self.rating_low < self.rating_high:
            raise UsageError("--rating-low must be less than --rating-high")
        names = [name_and_ref(text)[0] for text in self.scores]
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"two --scores are called {name}; name them by name=table")
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
        """(metric, column) of the further columns. Raises UsageError."""
        return [parse_signal(text) for text in self.signal]

    def bootstrap(self) -> Bootstrap:
        """How intervals are made."""
        return Bootstrap(self.resamples, self.confidence, self.seed, kendall_rows=self.kendall_rows)

    @property
    def results(self) -> str:
        """The table of results."""
        return self.table or str(Path(delta.path_of(self.output)) / "evaluation")


def run(spark: SparkSession, config: EvaluateConfig) -> dict[str, Any]:
    """Join, compare, tell and write."""
    checks, signals = config.checks(), config.signals()
    check_replaceable(spark, config.results)
    sources = [
        read_scores(spark, text, config.uid_column, config.caption_column, config.scorer)
        for text in config.scores
    ]
    columns = Columns(config.uid_column, config.caption_column, config.group_column)
    span = Range(config.rating_low, config.rating_high)
    ratings = read_ratings(spark, config.ratings, columns, span, bool(checks))
    if config.limit is not None:
        ratings = ratings.first(config.limit)
    metrics = metrics_of(ratings.metrics, checks)
    wanted = [_wanted(source, metrics, signals) for source in sources]
    _check_names(metrics, signals, sources)
    captions = _count(ratings, sum(len(source.scorers) for source in sources), config)

    rated: list[Rated] = []
    findings: list[Finding] = []
    for source, compared in zip(sources, wanted, strict=True):
        needed = list(dict.fromkeys(comparison.column for comparison in compared))
        for one in join(ratings, source, needed, captions):
            if not rated:
                _check_kinds(one, checks)
            job_runner.say(f"{one.label}: {captions:,} captions joined, comparing ...")
            rated.append(one)
            findings += compare(one, compared, checks, config.bootstrap())
    counts = dict(ratings.counts)
    if config.limit is None:  # else nothing is known of the captions beyond it
        counts["averaged"] = counts["used"] - sum(
            int(np.isfinite(values).sum()) for values in rated[0].ratings.values()
        )
    intervals = f"{_percent(config.confidence)} intervals"
    text = markdown(findings, rated, counts, captions, intervals)
    job_runner.say(f"\n{text}")
    summary: dict[str, Any] = {
        "ratings": config.ratings,
        "captions": captions,
        "ratings_by_use": counts,
        "scorers": [_told(one, findings) for one in rated],
    }
    if config.dry_run:
        return summary | {"dry_run": True}
    run_id = job_runner.new_run_id()
    document = {"settings": config.model_dump(mode="json"), "versions": versions(), **summary}
    folder = write_files(config.output, run_id, document, findings, text, intervals)
    write_table(spark, config.results, run_id, findings, config.confidence)
    job_runner.say(f"written: {config.results}, and evaluation.json, .md and .png in {folder}")
    return summary | {"run_id": run_id, "output": str(folder), "table": config.results}


def _wanted(
    source: Scores, metrics: Sequence[str], signals: Sequence[tuple[str, str]]
) -> list[Comparison]:
    """What to compare of one table. Raises UsageError where that is nothing."""
    found = comparisons(metrics, source.columns, signals)
    if not found:
        meant = [near for metric in metrics if (near := nearest(metric, source.columns))]
        hint = f" (did you mean {', '.join(dict.fromkeys(meant))}? --signal compares any column)"
        raise UsageError(
            f"--scores {source.ref} has no column of numbers called {' or '.join(metrics)}; "
            f"it has {', '.join(source.columns) or 'none'}{hint if meant else ''}"
        )
    silent = [m for m in metrics if not any(c.metric == m for c in found)]
    if silent:
        job_runner.say(
            f"{source.name}: no column for {', '.join(silent)}, which it is not compared with"
        )
    return found


def _check_names(
    metrics: Sequence[str], signals: Sequence[tuple[str, str]], sources: Sequence[Scores]
) -> None:
    """Refuse signals of unknown metrics or columns."""
    there = list(dict.fromkeys(column for source in sources for column in source.columns))
    for metric, column in signals:
        for what, name, names in (("metric", metric, metrics), ("column", column, there)):
            if name not in names:
                guess = nearest(name, names)
                hint = f"did you mean {guess}?" if guess else f"there are {', '.join(names)}"
                raise UsageError(f"--signal {metric}={column}: no {what} {name}; {hint}")


def _check_kinds(rated: Rated, checks: Sequence[Check]) -> None:
    """Refuse checks of kinds that there are not, and a column of kinds that cannot be one."""
    kinds = sorted({kind for kind in rated.kinds if kind is not None})
    if len(kinds) > _MOST_KINDS or ALL in kinds:
        why = f"is {ALL!r}, which means all kinds" if ALL in kinds else f"has {len(kinds):,} values"
        raise UsageError(f"--ratings: the column kind {why}; rename it or its value")
    for check in checks:
        option = "--pairs-won" if check.paired else "--auc"
        for kind in (*check.first, *check.second):
            if kind not in kinds:
                guess = nearest(kind, kinds)
                hint = (
                    f"did you mean {guess}?" if guess else f"there are {', '.join(kinds) or 'none'}"
                )
                raise UsageError(f"{option} {check.metric}:{check.kinds}: no kind {kind}; {hint}")


def _count(ratings: Ratings, scorers: int, config: EvaluateConfig) -> int:
    """How many captions there are; refuses more than the driver is to hold."""
    captions = ratings.captions.count()
    if captions * scorers > config.max_rows:
        raise UsageError(
            f"{captions:,} captions of {scorers} scorers are more than --max-rows "
            f"{config.max_rows:,}, which the driver collects; take fewer by --limit"
        )
    if not captions:
        raise UsageError(f"--ratings {config.ratings}: there is no caption with a uid")
    return captions


def _told(rated: Rated, findings: Sequence[Finding]) -> dict[str, Any]:
    """One scorer in the line of JSON."""
    missing = lost(rated)
    own = [f for f in findings if f.rated is rated]
    told: dict[str, Any] = {
        "scorer": rated.label,
        "scores": rated.scores,
        "scorer_id": rated.scorer,
        "scored": len(rated.statuses) - sum(missing.values()),
        "without_scores": missing,
        "several_rows": rated.repeated,
        "spearman": {
            f"{f.comparison.metric} {f.comparison.reading}": f.outcome.spearman.value
            for f in own
            if isinstance(f.outcome, Agreement) and f.kind == ALL
        },
    }
    checks = {
        f"{f.statistics} {f.comparison.metric}:{f.kind} {f.comparison.reading}": f.outcome.share
        for f in own
        if isinstance(f.outcome, Ranking)
    }
    return told | ({"checks": {what: s.value for what, s in checks.items()}} if checks else {})


def _percent(share: float) -> str:
    return f"{100 * share:.10g} %"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    return job_runner.main("evaluate", EvaluateConfig, run, argv)
