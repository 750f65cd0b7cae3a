"""Times the commit of a slice into a large scores table against that into a small one:
`python tests/bench/bench_commits.py [--large N] [--small N] [--commits N]`.

Bar: 1.3 times.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

BAR = 1.3
SLICE_ROWS = 2000
ROWS_A_COMMIT = 20_000
SCORER = "0123456789ab"


def rows(spark: Any, first: int, count: int) -> Any:
    """Finished rows with keys from this number on."""
    from pyspark.sql import functions as F

    frame = spark.range(first, first + count, 1, 2)
    text = F.col("id").cast("string")
    score = (F.xxhash64("id") % 100).cast("float")
    return frame.select(
        F.sha2(text, 256).alias("uid"),
        F.sha2(F.concat(F.lit("i"), text), 256).alias("image_sha"),
        F.sha2(F.concat(F.lit("c"), text), 256).alias("caption_sha"),
        F.lit(0).alias("copy"),
        *(F.abs(score).alias(name) for name in ("itm", "odf", "ctq", "su")),
        F.lit("ok").alias("status"),
        F.lit(1).alias("attempts"),
    )


def fill(spark: Any, ref: str, count: int) -> None:
    """A scores table of so many rows, in commits as a run makes them."""
    from jobs.tables import delta, scores

    scores.create(spark, ref)
    for first in range(0, count, ROWS_A_COMMIT):
        part = rows(spark, first, min(ROWS_A_COMMIT, count - first))
        full = scores.with_all_columns(part, SCORER, "filled", datetime.now(UTC))
        delta.append(full, ref, "fill", first)


def main() -> int:
    """Print one line of JSON; exit code 1 above the bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--large", type=int, default=2_000_000)
    parser.add_argument("--small", type=int, default=10_000)
    parser.add_argument("--commits", type=int, default=15)
    options = parser.parse_args()
    from jobs.core.session import get_spark
    from jobs.score.scores_writer import ScoresWriter, counts_of
    from jobs.score.slice_queue import Extent
    from jobs.score.tally import Tally
    from jobs.tables import delta

    spark, _ = get_spark("bench")
    seconds: dict[int, list[float]] = {options.small: [], options.large: []}
    with tempfile.TemporaryDirectory() as folder:
        writers = {}
        for size in seconds:
            ref = str(Path(folder, str(size)))
            fill(spark, ref, size)
            version = delta.version(spark, ref)
            writers[size] = ScoresWriter(spark, ref, SCORER, f"run-{size}", version, Tally())
        for number in range(options.commits):
            for size, writer in writers.items():  # in turn, so that both see the same machine
                part = rows(spark, size + number * SLICE_ROWS, SLICE_ROWS).persist()
                counts = counts_of(part)
                started = time.perf_counter()
                writer.commit(part, counts, Extent("bench", frozenset([str(number)])))
                seconds[size].append(time.perf_counter() - started)
                part.unpersist()
        for size in seconds:
            count = delta.read(spark, str(Path(folder, str(size)))).count()
            assert count == size + options.commits * SLICE_ROWS, "rows were lost"
    # The first ones compile the plans.
    medians = {size: statistics.median(values[3:]) for size, values in seconds.items()}
    ratio = medians[options.large] / medians[options.small]
    line = {
        "commit_seconds": {f"{size:,} rows": round(s, 3) for size, s in medians.items()},
        "large_over_small": round(ratio, 2),
        "bar": BAR,
        "load": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(line))
    return int(ratio > BAR)


if __name__ == "__main__":
    sys.exit(main())
