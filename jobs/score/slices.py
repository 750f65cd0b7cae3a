"""Scores a pairs table slice by slice, beside other runs that do the same.

Before each slice a run looks at what the others have done since, and leaves it out. Slices grow
until each takes about a minute.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from udfs.models.model_config import ModelConfig
from udfs.spark import score_batches

from ..core.errors import RUN_AGAIN, ConflictError, UsageError
from ..core.job_runner import say
from ..core.progress import Progress
from ..tables.pairs import keyed_by
from . import pending_rows
from .scores_writer import Counts, ScoresWriter, counts_of
from .settings import ScoreConfig
from .slice_queue import Extent, Slice, SliceQueue
from .table_stream import for_each_slice, must_stream

SLICE_SECONDS = 60  # target for one slice: what a crash may cost, and how often progress is shown
TASK_ROWS = 64  # a task with fewer rows is not worth starting
STREAMED_ROWS = 512  # per task, about, in a slice of a table that is read through its catalog
FIRST_ROWS = 16  # per task in the first slice: it ends soon and gives a rate to plan with
SLICE_ATTEMPTS = 3
"""A local session does not try a task again when its Python worker has been killed."""

REPLACED = "files of the version that this run reads are gone (rows changed, then VACUUM)"
"""Said of the pairs table."""

_FILE_GONE = re.compile(r"FILE_NOT_EXIST|FileNotFoundException")
_WORKER_DIED = re.compile(
    r"Python worker (exited|failed)|Connection reset|Stream closed|ExecutorLost"
)


@dataclass
class Slices:
    """The slices of one run: `source` is the pairs table as it is, `pending` the rows to score."""

    spark: SparkSession
    config: ScoreConfig
    model: ModelConfig
    source: DataFrame
    pending: DataFrame
    writer: ScoresWriter
    queue: SliceQueue
    progress: Progress
    scored_twice: int = 0
    """Rows that other runs had committed when this one had scored them."""

    def __post_init__(self) -> None:
        self.slots = _slots(self.spark)
        self.columns = columns_of(self.source, self.config)
        self.left_out = 0  # slices of others that are out of the queue
        self.to_model = self.pending.where(F.col("status").isNull())

    def score_all(self) -> None:
        """Read, score and commit slice by slice, until nothing is left."""
        if must_stream(self.config.pairs):
            self._score_stream()
        else:
            self._score_files()

    def _score_files(self) -> None:
        config, queue, writer = self.config, self.queue, self.writer
        direct = pending_rows.files_hold_just_the_rows(self.spark, config.pairs, self.columns)
        size = min(config.slice_rows, FIRST_ROWS * self.slots) if direct else config.slice_rows
        upcoming: Slice | None = None

        def choose() -> Extent | None:
            nonlocal upcoming
            self._leave_out_done()
            upcoming = queue.next(size, writer.claims())
            return queue.extent(upcoming) if upcoming else None

        writer.look()
        if queue.rows > size:  # else there is nothing to share
            writer.claim(choose)
        else:
            choose()
        while upcoming:
            part = upcoming
            payload = pending_rows.read_files(
                self.spark, self.source, part.paths, direct, self.columns
            )
            wanted = pending_rows.in_files(self.to_model, part.paths, part.start, part.stop)
            started = time.monotonic()
            with self._scored(payload, wanted, queue.extent(part), size) as (scored, counts):
                if direct and counts["rows"]:
                    rate = counts["rows"] / (time.monotonic() - started)
                    fitting = max(TASK_ROWS * self.slots, round(rate * SLICE_SECONDS))
                    size = min(config.slice_rows, fitting)
                self._commit(scored, counts, queue.extent(part), choose)

    def _score_stream(self) -> None:
        """As `_score_files`, for a table that is read as a stream: its slices come in one order for
        all runs. Those that others work on are left for a second pass."""
        queue, writer = self.queue, self.writer
        size = min(self.config.slice_rows, STREAMED_ROWS * self.slots)
        paths = {pending_rows.file_name(path): path for path in queue.paths}
        if len(paths) < len(queue):
            raise UsageError(
                f"{self.config.pairs}: data files in different folders have the same name; give the"
                " table's path instead of its name"
            )
        at_once = max(1, round(size / self.progress.total * len(queue)))

        def score(payload: DataFrame, names: list[str], leave_claimed: bool) -> None:
            writer.look()
            self._leave_out_done()
            names = [name for name in names if paths.get(name) in queue.paths]
            if not names:
                return
            extent = queue.extent(Slice(tuple(paths[name] for name in names)))

            def unclaimed() -> Extent | None:
                return None if any(extent.overlaps(c) for c in writer.claims()) else extent

            if leave_claimed and writer.has_others and not writer.claim(unclaimed):
                return
            wanted = pending_rows.in_files(self.to_model, names)
            with self._scored(payload, wanted, extent, size) as (scored, counts):
                self._commit(scored, counts, extent, lambda: None)

        for leave_claimed in (True, False):
            if queue:
                for_each_slice(
                    self.spark,
                    self.config.pairs,
                    self.columns,
                    at_once,
                    partial(score, leave_claimed=leave_claimed),
                )
        if queue:  # a stream begins with the table as it is then
            raise ConflictError(f"{self.config.pairs}: {REPLACED}; {RUN_AGAIN}")

    def _leave_out_done(self) -> None:
        """Take out of the queue what other runs have done. With --retry they may not have done what
        this run is to do."""
        if self.config.retry:
            return
        done = self.writer.done_by_others()
        for extent in done[self.left_out :]:
            self.queue.remove(extent)
        self.left_out = len(done)

    @contextmanager
    def _scored(
        self, payload: DataFrame, wanted: DataFrame, extent: Extent, size: int
    ) -> Iterator[tuple[DataFrame, Counts]]:
        """The scores of a slice, persisted within the `with` block, and their counts."""
        wanted = self.writer.unanswered(wanted, extent)
        tasks = self.config.partitions or max(self.slots, min(size // TASK_ROWS, 4 * self.slots))
        keyed = keyed_by(payload, self.config)
        scored = scored_rows(keyed, wanted, self.model, self.config, tasks).persist()
        try:
            counts = _computed(scored, self.config.pairs)
            if (missing := wanted.count() - counts["rows"]) > 0:
                raise RuntimeError(
                    f"{missing:,} rows of {self.config.pairs} are not where they were when this run"
                    " began; nothing of their slice is written"
                )
            yield scored, counts
        finally:
            scored.unpersist()

    def _commit(
        self,
        scored: DataFrame,
        counts: Counts,
        extent: Extent,
        choose: Callable[[], Extent | None],
    ) -> None:
        self.queue.remove(extent)
        written = self.writer.commit(scored, counts, extent, choose)
        self.scored_twice += counts["rows"] - written
        if self.left_out:  # others have taken their part
            self.progress.total = self.progress.done + written + round(self.queue.rows)
        self.progress.add(written)


def _computed(scored: DataFrame, pairs: str) -> Counts:
    """Compute the rows and count them; again, if Spark's Python worker has been killed. Raises
    ConflictError if files of the table `pairs` are gone."""
    for attempt in range(SLICE_ATTEMPTS):
        try:
            return counts_of(scored)
        except Exception as error:
            if _FILE_GONE.search(str(error)):
                raise ConflictError(f"{pairs}: {REPLACED}; {RUN_AGAIN}") from error
            if attempt + 1 == SLICE_ATTEMPTS or not _WORKER_DIED.search(str(error)):
                raise
            say("a Python worker has been killed; this slice is scored again")
    raise AssertionError


def scored_rows(
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
    scored = rows.mapInArrow(score, schema)
    return scored.withColumns({"copy": F.lit(0), "attempts": F.col("attempts").cast("int")})


def _repartition_by_task(rows: DataFrame, tasks: int) -> DataFrame:
    if hasattr(rows, "repartitionById"):  # Spark 4.1 and later
        repartitioned: DataFrame = rows.repartitionById(tasks, F.col("task"))
        return repartitioned
    return rows.repartition(tasks, "task")


def columns_of(source: DataFrame, config: ScoreConfig) -> list[str]:
    """The columns of the pairs table that scoring reads."""
    image = config.image_path_column or config.image_column
    wanted = {config.uid_column, image, config.caption_column, "image_sha"}
    lower = {name.lower() for name in wanted}
    return [name for name in source.columns if name.lower() in lower]


def _slots(spark: SparkSession) -> int:
    """How many tasks run at once; a guess on Spark Connect, which does not say."""
    try:
        cpus = int(spark.conf.get("spark.task.cpus", "1") or 1)
        return max(1, spark.sparkContext.defaultParallelism // cpus)
    except Exception:  # Spark Connect has no context
        return max(1, int(spark.conf.get("spark.sql.shuffle.partitions", "8") or 8))
