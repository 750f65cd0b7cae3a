"""Score the pairs that have no scores yet.

    mlm-filter score --pairs PAIRS --scores SCORES [--model FOLDER_OR_HUB_ID] [--limit 500]

Every row of the pairs table gets one row of scores: four scores (or `clip_score`, from a dual
encoder such as CLIP), or a status and a reason. Rows are appended in slices: a run that is killed
loses one slice, and the next run continues from there.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from udfs.models import identity
from udfs.models.model_config import ModelConfig, ModelError
from udfs.models.model_files import is_folder
from udfs.spark import explain_model
from udfs.starter.model import is_starter, is_trained
from udfs.starter.wheels import StarterError

from ..core.errors import UsageError
from ..core.job_runner import main as run_job
from ..core.job_runner import new_run_id, say
from ..core.progress import Progress
from ..tables import delta, runs, uid_origin
from ..tables import scores as scores_table
from ..tables.pairs import keyed_by
from . import pending_rows
from .scores_writer import ScoresWriter, counts_of
from .settings import ScoreConfig
from .slice_queue import SliceQueue
from .slices import Slices
from .tally import Tally


def run(spark: SparkSession, config: ScoreConfig) -> dict[str, Any]:
    """Score what is new; return the summary. Raises UsageError for what the user can correct."""
    started = datetime.now(UTC)
    model, scorer = _model(config)
    version = delta.version(spark, config.pairs)
    source = delta.read(spark, config.pairs, version)
    pairs = keyed_by(source, config)
    scores_version = None
    if delta.exists(spark, config.scores):
        scores_version = delta.version(spark, config.scores)
        existing = delta.read(spark, config.scores, scores_version)
        _check_scores(existing, config)
    else:
        existing = spark.createDataFrame([], scores_table.SCORES_TABLE)

    rows = pending_rows.number_copies(pending_rows.keys_of(pairs, config.limit))
    pending = pending_rows.unscored(rows, existing, scorer, config.retry, config.max_attempts)
    pending = pending.persist()
    files = _files(pending)
    total = sum(files.values())
    skipped = pending.where(F.col("status").isNotNull()).count()
    summary: dict[str, Any] = {
        "pairs": config.pairs,
        "pairs_version": version,
        "scores": config.scores,
        "scorer": scorer,
        "model": config.model,
    }
    say(f"{config.pairs} (version {version}): {total + skipped:,} rows not yet scored by {scorer}")
    if is_starter(config.model) and not is_trained(config.model):
        say("note: the starter model has not been trained to score yet; its scores mean nothing")
        summary["note"] = "the starter model has no score training yet"
    if config.dry_run:
        lines = _explained(spark, model, config)
        return summary | {
            "dry_run": True,
            "rows": total + skipped,
            "to_model": total,
            "model_runs": lines,
        }

    run_id = new_run_id()
    tally = Tally()
    scores_table.create(spark, config.scores)
    origin = uid_origin.of_column(spark, config.pairs, config.uid_column)
    if scores_version is not None:
        origin = uid_origin.combined(uid_origin.of(spark, config.scores), origin)
    uid_origin.record(spark, config.scores, origin)
    seen = -1 if scores_version is None else scores_version
    writer = ScoresWriter(spark, config.scores, scorer, run_id, seen, tally)
    queue = SliceQueue(files.items(), _division(spark, config, version), run_id)
    progress = Progress(total)
    if skipped:
        rows = pending_rows.skipped_rows(pending)
        writer.commit(rows, counts_of(rows), queue.skipped_rows())
    slices = Slices(spark, config, model, source, pending, writer, queue, progress)
    if total:
        slices.score_all()
    pending.unpersist()
    seconds = time.monotonic() - progress.started
    counts = tally.by_status()
    rate = progress.done / seconds if progress.done else 0.0
    runs.record(
        spark,
        config.runs or runs.ref_beside(config.scores),
        run_id,
        "score",
        config,
        started,
        inputs={config.pairs: version},
        outputs={config.scores: delta.version(spark, config.scores)},
        rows=sum(counts.values()),
        rows_by_status=counts,
        rows_per_second=rate,
        seconds_by_stage=dict(tally.seconds),
    )
    tally.say(rate)
    if total > progress.done:
        say(f"other runs have scored {total - progress.done:,} of the rows meanwhile")
    return summary | {
        "run_id": run_id,
        "rows": sum(counts.values()),
        "scored": progress.done,
        "by_other_runs": total - progress.done,
        "scored_twice": slices.scored_twice,
        "statuses": counts,
        "rows_per_second": round(rate, 2),
        "seconds_by_stage": {stage: round(s, 2) for stage, s in tally.seconds.items()},
    }


def _model(config: ScoreConfig) -> tuple[ModelConfig, str]:
    """The model's configuration, with its revision pinned, and the scorer's hash."""
    try:
        if is_starter(config.model):
            say("Looking for the starter model (assembled once, about half a minute) ...")
        content, commit = identity.identity(config.model, config.revision)
        model = config.model_config_of(commit, content if is_folder(config.model) else None)
        return model, identity.scorer_id(model)
    except (ModelError, StarterError) as error:
        raise UsageError(str(error)) from None


def _explained(spark: SparkSession, model: ModelConfig, config: ScoreConfig) -> list[str]:
    """What the model says of itself, loaded by one task as scoring would: how it runs, and why."""
    say("loading the model in one task, to see how it runs ...")
    explain, schema = explain_model(model, config.device)
    rows = spark.range(1, numPartitions=1).mapInArrow(explain, schema).collect()
    lines = [str(row["line"]) for row in rows]
    for line in lines:
        say(f"  {line}")
    return lines


def _check_scores(scores: DataFrame, config: ScoreConfig) -> None:
    if missing := scores_table.missing(scores.columns):
        raise UsageError(f"{config.scores} is not a scores table: it lacks {', '.join(missing)}")


def _files(pending: DataFrame) -> dict[str, int]:
    """The data files that hold rows for the model, with the number of such rows."""
    counted = pending.where(F.col("status").isNull()).groupBy("file_path").count()
    return {row["file_path"]: row["count"] for row in counted.collect()}


def _division(spark: SparkSession, config: ScoreConfig, version: int) -> str:
    """What decides which rows there are and in which file and bucket each is: runs for which it is
    the same can tell each other of slices."""
    columns = (config.uid_column, config.image_column, config.image_path_column)
    parts = (
        delta.table_id(spark, config.pairs),
        version,
        *columns,
        config.caption_column,
        config.limit,
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; return its exit code."""
    return run_job("score", ScoreConfig, run, argv)
