"""Progress of one long Spark action that has no steps of its own: how many tasks are done."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pyspark.sql import SparkSession

from .progress import Progress

INTERVAL_SECONDS = 20.0
"""The time between two lines."""


@contextmanager
def task_progress(spark: SparkSession) -> Iterator[None]:
    """While the `with` block runs, print from time to time how many tasks of the stage are done.

    Prints nothing on Spark Connect, which does not say.
    """
    try:
        tracker = spark.sparkContext.statusTracker()
    except Exception:  # Spark Connect has no context
        yield
        return
    done = threading.Event()

    def print_tasks() -> None:
        stages: dict[int, Progress] = {}
        while not done.wait(INTERVAL_SECONDS):
            for stage in sorted(tracker.getActiveStageIds()):
                info = tracker.getStageInfo(stage)
                if info is None:
                    continue
                progress = stages.setdefault(stage, Progress(info.numTasks, "tasks"))
                if info.numCompletedTasks > progress.done:
                    progress.add(info.numCompletedTasks - progress.done)

    thread = threading.Thread(target=print_tasks, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
