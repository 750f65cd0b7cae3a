"""Progress of one long Spark action that has no steps of its own: the tasks that are done."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pyspark.sql import SparkSession

from .progress import Progress

SECONDS = 20.0
"""How often a line is printed."""


@contextmanager
def watched(spark: SparkSession) -> Iterator[None]:
    """Print how many tasks of the running stage are done, now and then, while the body runs.

    Prints nothing where Spark does not tell (Spark Connect).
    """
    try:
        tracker = spark.sparkContext.statusTracker()
    except Exception:  # Spark Connect has no context
        yield
        return
    over = threading.Event()

    def watch() -> None:
        stages: dict[int, Progress] = {}
        while not over.wait(SECONDS):
            for stage in sorted(tracker.getActiveStageIds()):
                info = tracker.getStageInfo(stage)
                if info is None:
                    continue
                progress = stages.setdefault(stage, Progress(info.numTasks, "tasks"))
                if info.numCompletedTasks > progress.done:
                    progress.add(info.numCompletedTasks - progress.done)

    thread = threading.Thread(target=watch, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
