"""Score the pairs that have no scores yet.

    mlm-filter score --pairs PAIRS --scores SCORES [--model FOLDER_OR_HUB_ID] [--limit 500]

Every row of the pairs table gets one row of scores: four scores (or `clip_score`, from a dual
encoder such as CLIP), or a status and a reason. Rows are appended in slices: a run that is killed
loses one slice, and the next run continues from there.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from pyspark.sql import DataFrame, Observation, SparkSession, Window
from pyspark.sql import functions as F

from udfs.models import identity
from udfs.models.model_config import ModelConfig, ModelError
from udfs.scoring.results import STATUSES
from udfs.spark import STAGES, explain_model, score_batches
from udfs.starter.model import is_starter, is_trained
from udfs.starter.wheels import StarterError

from ..core.errors import UsageError
from ..core.job_runner import main as run_job
from ..core.job_runner import new_run_id, say
from ..core.progress import Progress
from ..tables import delta, runs, uid_origin
from ..tables import scores as scores_table
from ..tables.pairs import with_keys
from . import pending_rows
from .settings import ScoreConfig
from .table_stream import for_each_slice, must_stream
from .tally import Tally

SLICE_SECONDS = 60  # target for one slice: what a crash may cost, and how often progress is shown
TASK_ROWS = 64  # a task with fewer rows is not worth starting
STREAMED_ROWS = 512  # per task, about, in a slice of a table that is read through its catalog
FIRST_ROWS = 16  # per task in the first slice: it ends soon and gives a rate to plan with


def run(spark: SparkSession, config: ScoreConfig) -> dict[str, Any]:
    """Score what is new; return the summary. Raises UsageError for what the user can correct."""
    started = datetime.now(UTC)
    model, scorer = _model(config)
    version = delta.version(spark, config.pairs)
    source = delta.read(spark, config.pairs, version)
    pairs = _with_keys(source, config)
    scores_version = None
    if delta.exists(spark, config.scores):
        scores_version = delta.version(spark, config.scores)
        existing = delta.read(spark, config.scores, scores_version)
        _check_scores(existing, config)
    else:
        existing = spark.createDataFrame([], scores_table.SCORES_TABLE)

    rows = pending_rows.number_copies(pending_rows.keys_of(pairs, config.limit))
    pending = pending_rows.unscored(rows, existing, scorer, config.retry).persist()
    files = _files(pending)
    total = sum(file.rows for file in files)
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
    if config.retry and scores_version is not None:
        _delete_retried(spark, config, scorer)
    if skipped:
        _append(pending_rows.skipped_rows(pending), config, scorer, run_id, 0, tally)
    progress = Progress(total)
    if total:
        _score_slices(spark, config, model, scorer, run_id, source, pending, files, tally, progress)
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
    return summary | {
        "run_id": run_id,
        "rows": sum(counts.values()),
        "scored": progress.done,
        "statuses": counts,
        "rows_per_second": round(rate, 2),
        "seconds_by_stage": {stage: round(s, 2) for stage, s in tally.seconds.items()},
    }


def _score_slices(
    spark: SparkSession,
    config: ScoreConfig,
    model: ModelConfig,
    scorer: str,
    run_id: str,
    source: DataFrame,
    pending: DataFrame,
    files: deque[pending_rows.DataFile],
    tally: Tally,
    progress: Progress,
) -> None:
    """Read, score and append slice by slice. Slices grow until each takes about SLICE_SECONDS."""
    slots = _slots(spark)
    columns = _columns(source, config)
    to_model = pending.where(F.col("status").isNull())
    numbers = itertools.count(1)

    def score(payload: DataFrame, wanted: DataFrame, size: int) -> int:
        tasks = config.partitions or max(slots, min(size // TASK_ROWS, 4 * slots))
        scored = _scored(_with_keys(payload, config), wanted, model, config, tasks)
        done = _append(scored, config, scorer, run_id, next(numbers), tally)
        progress.add(done)
        return done

    if must_stream(config.pairs):
        size = min(config.slice_rows, STREAMED_ROWS * slots)
        at_once = max(1, size * len(files) // progress.total)
        for_each_slice(
            spark,
            config.pairs,
            columns,
            at_once,
            lambda payload, names: score(payload, pending_rows.in_files(to_model, names), size),
        )
        return
    direct = pending_rows.files_hold_just_the_rows(spark, config.pairs, columns)
    size = min(config.slice_rows, FIRST_ROWS * slots) if direct else config.slice_rows
    while files:
        part = pending_rows.next_slice(files, size)
        payload = pending_rows.read_slice(spark, source, part, direct, columns)
        started = time.monotonic()
        done = score(payload, pending_rows.in_slice(to_model, part), size)
        if direct:
            rate = done / (time.monotonic() - started)
            size = min(config.slice_rows, max(TASK_ROWS * slots, round(rate * SLICE_SECONDS)))


def _scored(
    payload: DataFrame, wanted: DataFrame, model: ModelConfig, config: ScoreConfig, tasks: int
) -> DataFrame:
    """Score the rows of `payload` that are in `wanted`, each once, in evenly filled tasks."""
    image = "image_path" if config.image_path_column else "image"
    on = ["file_name", *pending_rows.CONTENT_KEYS]
    # Dealt out by row number: hashing some hundred rows to a few tasks would overfill some by half.
    task = F.pmod(F.row_number().over(Window.orderBy(F.xxhash64("uid"), "uid")), F.lit(tasks))
    keys = wanted.select(*on, "copies", "attempts", task.cast("int").alias("task"))
    rows = payload.join(F.broadcast(keys), on=on, how="inner").select(
        *pending_rows.CONTENT_KEYS,
        "copies",
        "task",
        F.col("attempts").cast("string"),
        image,
        F.col("caption").cast("binary"),  # text that is not valid UTF-8 would fail the task
    )
    # The join finds all identical rows of a file. One is scored; the others have their status.
    unique = F.col("copies") == 1
    rows = rows.where(unique).unionByName(
        rows.where(~unique).dropDuplicates(list(pending_rows.CONTENT_KEYS))
    )
    rows = _repartition_by_task(rows, tasks).drop("copies", "task")
    score, schema = score_batches(
        model, (*pending_rows.CONTENT_KEYS, "attempts"), image, config.device, config.roots()
    )
    return rows.mapInArrow(score, schema).withColumn("copy", F.lit(0))


def _repartition_by_task(rows: DataFrame, tasks: int) -> DataFrame:
    if hasattr(rows, "repartitionById"):  # Spark 4.1 and later
        repartitioned: DataFrame = rows.repartitionById(tasks, F.col("task"))
        return repartitioned
    return rows.repartition(tasks, "task")


def _append(
    rows: DataFrame, config: ScoreConfig, scorer: str, run_id: str, number: int, tally: Tally
) -> int:
    """Append finished rows as slice `number` of the run, count them, and return how many."""
    observation = Observation(f"slice-{number}")
    counts = [F.count_if(F.col("status") == status).alias(status) for status in STATUSES]
    seconds = [
        F.sum(name).alias(name) for name in (f"seconds_{s}" for s in STAGES) if name in rows.columns
    ]
    observed = rows.observe(observation, *counts, *seconds)
    finished = scores_table.with_all_columns(observed, scorer, run_id)
    delta.append(finished, config.scores, f"score-{run_id}", number)
    return tally.add(observation.get)


def _model(config: ScoreConfig) -> tuple[ModelConfig, str]:
    """The model's configuration, with its revision pinned, and the scorer's hash."""
    try:
        if is_starter(config.model):
            say("Looking for the starter model (assembled once, about half a minute) ...")
        _, commit = identity.identity(config.model, config.revision)
        model = config.model_config_of(commit)
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


def _with_keys(frame: DataFrame, config: ScoreConfig) -> DataFrame:
    return with_keys(
        frame,
        config.uid_column,
        config.image_column,
        config.image_path_column,
        config.caption_column,
    )


def _columns(source: DataFrame, config: ScoreConfig) -> list[str]:
    """The columns of the pairs table that scoring reads."""
    image = config.image_path_column or config.image_column
    wanted = {config.uid_column, image, config.caption_column, "image_sha"}
    lower = {name.lower() for name in wanted}
    return [name for name in source.columns if name.lower() in lower]


def _check_scores(scores: DataFrame, config: ScoreConfig) -> None:
    if missing := scores_table.missing(scores.columns):
        raise UsageError(f"{config.scores} is not a scores table: it lacks {', '.join(missing)}")


def _files(pending: DataFrame) -> deque[pending_rows.DataFile]:
    """The data files that hold rows for the model, with the number of such rows."""
    counted = pending.where(F.col("status").isNull()).groupBy("file_path").count()
    rows = counted.orderBy("file_path").collect()
    return deque(pending_rows.DataFile(row["file_path"], row["count"]) for row in rows)


def _delete_retried(spark: SparkSession, config: ScoreConfig, scorer: str) -> None:
    """Delete the rows to be scored again; after a crash here they simply have no scores."""
    statuses = ", ".join(f"'{status}'" for status in config.retry)
    where = f"scorer = '{scorer}' AND status IN ({statuses})"
    spark.sql(f"DELETE FROM {delta.sql_name(config.scores)} WHERE {where}").collect()


def _slots(spark: SparkSession) -> int:
    """How many tasks run at once; a guess on Spark Connect, which does not say."""
    try:
        cpus = int(spark.conf.get("spark.task.cpus", "1") or 1)
        return max(1, spark.sparkContext.defaultParallelism // cpus)
    except Exception:  # Spark Connect has no context
        return max(1, int(spark.conf.get("spark.sql.shuffle.partitions", "8") or 8))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; return its exit code."""
    return run_job("score", ScoreConfig, run, argv)
