"""Score the pairs that have no scores yet.

    mlm-filter score --pairs PAIRS --scores SCORES [--model FOLDER_OR_HUB_ID] [--limit 500]

Every row of the pairs table comes out once, with four scores (from a dual encoder such as CLIP:
with `clip_score`) or with a status and a reason. Rows are appended in slices: a run that dies loses
one slice, and the next run goes on from there.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pyspark.sql import DataFrame, Observation, SparkSession, Window
from pyspark.sql import functions as F

from udfs.models import identity
from udfs.models.model_config import ModelConfig, ModelError
from udfs.scoring.results import BAD_IMAGE, MODEL_ERROR, STATUSES
from udfs.spark import STAGES, score_batches
from udfs.starter.model import StarterError, is_starter, is_trained

from ..core.errors import UsageError
from ..core.job_runner import main as run_job
from ..core.job_runner import new_run_id, say
from ..core.progress import Progress
from ..tables import delta, runs
from ..tables import scores as scores_table
from ..tables.pairs import with_keys
from . import pending_rows as plan
from .settings import ScoreConfig

SLICE_SECONDS = 60  # what a slice is sized for: what a crash may cost, and how often progress shows
TASK_ROWS = 64  # fewer rows a task are not worth its start
FIRST_ROWS = 16  # a task in the first slice: soon something to see, and a rate to plan with


@dataclass
class Tally:
    """What a run has done so far."""

    statuses: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    def add(self, observed: dict[str, Any]) -> int:
        """Count what an observation saw; return its rows."""
        for status in STATUSES:
            if observed.get(status):
                self.statuses[status] += observed[status]
        for stage in STAGES:
            self.seconds[stage] += observed.get(f"seconds_{stage}") or 0.0
        return sum(observed.get(status) or 0 for status in STATUSES)


def run(spark: SparkSession, config: ScoreConfig) -> dict[str, Any]:
    """Score what is new and return the summary. Raises UsageError for what the user can mend."""
    started = datetime.now(UTC)
    model, scorer = _model(config)
    version = delta.version(spark, config.pairs)
    source = delta.read(spark, config.pairs, version)
    pairs = _keyed(source, config)
    scores_version = None
    if delta.exists(spark, config.scores):
        scores_version = delta.version(spark, config.scores)
        known = delta.read(spark, config.scores, scores_version)
        _check_scores(known, config)
    else:
        known = spark.createDataFrame([], scores_table.SCORES_TABLE)

    rows = plan.numbered(plan.keys_of(pairs, config.limit))
    todo = plan.unscored(rows, known, scorer, config.retry).persist()
    files = _files(todo)
    total = sum(file.rows for file in files)
    aside = todo.where(F.col("status").isNotNull()).count()
    summary: dict[str, Any] = {
        "pairs": config.pairs,
        "pairs_version": version,
        "scores": config.scores,
        "scorer": scorer,
        "model": config.model,
    }
    say(f"{config.pairs} (version {version}): {total + aside:,} rows without an answer of {scorer}")
    if is_starter(config.model) and not is_trained(config.model):
        say("note: the starter model has no score training yet; its scores show the way, no more")
        summary["note"] = "the starter model has no score training yet"
    if config.dry_run:
        return summary | {"dry_run": True, "rows": total + aside, "to_model": total}

    run_id = new_run_id()
    tally = Tally()
    scores_table.create(spark, config.scores)
    if config.retry and scores_version is not None:
        _forget(spark, config, scorer)
    if aside:
        _append(plan.without_model(todo), config, scorer, run_id, 0, tally)
    progress = Progress(total)
    if total:
        _score_slices(spark, config, model, scorer, run_id, source, todo, files, tally, progress)
    todo.unpersist()
    seconds = time.monotonic() - progress.started
    counts = dict(sorted(tally.statuses.items()))
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
    _tell(counts, rate, tally)
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
    todo: DataFrame,
    files: deque[plan.File],
    tally: Tally,
    progress: Progress,
) -> None:
    """Slice by slice: read, score, append. Slices grow to what takes SLICE_SECONDS."""
    slots = _slots(spark)
    columns = _columns(source, config)
    plain = plan.is_plain(spark, config.pairs, columns)
    size = min(config.slice_rows, FIRST_ROWS * slots) if plain else config.slice_rows
    number = 0
    while files:
        number += 1
        part = plan.next_slice(files, size)
        wanted = plan.in_slice(todo.where(F.col("status").isNull()), part)
        payload = _keyed(plan.read_slice(spark, source, part, plain, columns), config)
        tasks = config.partitions or max(slots, min(size // TASK_ROWS, 4 * slots))
        began = time.monotonic()
        scored = _scored(payload, wanted, model, config, tasks)
        done = _append(scored, config, scorer, run_id, number, tally)
        progress.add(done)
        if plain:
            rate = done / (time.monotonic() - began)
            size = min(config.slice_rows, max(TASK_ROWS * slots, round(rate * SLICE_SECONDS)))


def _scored(
    payload: DataFrame, wanted: DataFrame, model: ModelConfig, config: ScoreConfig, tasks: int
) -> DataFrame:
    """Score the rows of `payload` that are `wanted`, each once, in evenly filled tasks."""
    image = "image_path" if config.image_path_column else "image"
    on = ["file_name", *plan.CONTENT]
    # Shared out by number: hashing some hundred rows to a few tasks leaves some half as full again.
    task = F.pmod(F.row_number().over(Window.orderBy(F.xxhash64("uid"), "uid")), F.lit(tasks))
    keys = wanted.select(*on, "copies", "attempts", task.cast("int").alias("task"))
    rows = payload.join(F.broadcast(keys), on=on, how="inner").select(
        *plan.CONTENT,
        "copies",
        "task",
        F.col("attempts").cast("string"),
        image,
        F.col("caption").cast("binary"),  # text that is not valid UTF-8 would end the task
    )
    # The join finds all identical rows of a file: one is scored, the others have been answered.
    alone = F.col("copies") == 1
    rows = rows.where(alone).unionByName(rows.where(~alone).dropDuplicates(list(plan.CONTENT)))
    rows = _spread(rows, tasks).drop("copies", "task")
    score, schema = score_batches(model, (*plan.CONTENT, "attempts"), image, config.device)
    return rows.mapInArrow(score, schema).withColumn("copy", F.lit(0))


def _spread(rows: DataFrame, tasks: int) -> DataFrame:
    if hasattr(rows, "repartitionById"):  # Spark 4.1 and later
        spread: DataFrame = rows.repartitionById(tasks, F.col("task"))
        return spread
    return rows.repartition(tasks, "task")


def _append(
    rows: DataFrame, config: ScoreConfig, scorer: str, run_id: str, number: int, tally: Tally
) -> int:
    """Append finished rows as slice `number` of the run, count them, and return how many."""
    seen = Observation(f"slice-{number}")
    counts = [F.count_if(F.col("status") == status).alias(status) for status in STATUSES]
    seconds = [
        F.sum(name).alias(name) for name in (f"seconds_{s}" for s in STAGES) if name in rows.columns
    ]
    observed = rows.observe(seen, *counts, *seconds)
    done = scores_table.finished(observed, scorer, run_id)
    delta.append(done, config.scores, f"score-{run_id}", number)
    return tally.add(seen.get)


def _model(config: ScoreConfig) -> tuple[ModelConfig, str]:
    """The model's configuration, pinned, and the scorer's hash."""
    try:
        if is_starter(config.model):
            say("Looking for the starter model (assembled once, about half a minute) ...")
        _, commit = identity.identity(config.model, config.revision)
        model = config.model_config_of(commit)
        return model, identity.scorer_id(model)
    except (ModelError, StarterError) as error:
        raise UsageError(str(error)) from None


def _keyed(frame: DataFrame, config: ScoreConfig) -> DataFrame:
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
    names = [config.uid_column, image, config.caption_column, "image_sha"]
    return [name for name in dict.fromkeys(names) if name in source.columns]


def _check_scores(known: DataFrame, config: ScoreConfig) -> None:
    if missing := scores_table.missing(known.columns):
        raise UsageError(f"{config.scores} is no scores table: it lacks {', '.join(missing)}")


def _files(todo: DataFrame) -> deque[plan.File]:
    """The data files that hold rows for the model, with their number of such rows."""
    counted = todo.where(F.col("status").isNull()).groupBy("file_path").count()
    rows = counted.orderBy("file_path").collect()
    return deque(plan.File(row["file_path"], row["count"]) for row in rows)


def _forget(spark: SparkSession, config: ScoreConfig, scorer: str) -> None:
    """Delete the answers that are to be had again; a crash after this leaves them unscored."""
    statuses = ", ".join(f"'{status}'" for status in config.retry)
    where = f"scorer = '{scorer}' AND status IN ({statuses})"
    spark.sql(f"DELETE FROM {delta.sql_name(config.scores)} WHERE {where}").collect()


def _slots(spark: SparkSession) -> int:
    """How many tasks run at once; a guess where Spark Connect does not tell."""
    try:
        cpus = int(spark.conf.get("spark.task.cpus", "1") or 1)
        return max(1, spark.sparkContext.defaultParallelism // cpus)
    except Exception:  # Spark Connect has no context
        return max(1, int(spark.conf.get("spark.sql.shuffle.partitions", "8") or 8))


def _tell(counts: dict[str, int], rate: float, tally: Tally) -> None:
    shown = ", ".join(f"{status} {count:,}" for status, count in counts.items()) or "nothing to do"
    say(f"rows: {shown}")
    if rate:
        stages = ", ".join(f"{stage} {tally.seconds[stage]:.1f} s" for stage in STAGES)
        say(f"{rate:.2f} rows/s; task seconds: {stages}")
    failed = [status for status in (BAD_IMAGE, MODEL_ERROR) if counts.get(status)]
    if failed:
        say(f"see the column `reason`; --retry {failed[0]} scores such rows again")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; return its exit code."""
    return run_job("score", ScoreConfig, run, argv)
