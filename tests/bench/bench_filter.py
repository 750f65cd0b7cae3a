"""Measures the filter job: `python tests/bench/bench_filter.py [--rows N]` (default 10 million).

Spark makes scores and a signal table (not measured); then two thresholds, one best fraction and one
joined signal are evaluated and the selection is written. Bars, on two cores: under 3 minutes, under
2 GB of memory for the driver (its Java heap is set to 2 GB, which with `local[2]` includes the
executors), and the same number of kept rows as SQL gives.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RULES = ["itm >= 40", "su >= 10", "top 30% of odf", "clip_score >= 0.2"]
SECONDS, MEGABYTES = 180.0, 2048.0


def make_tables(spark: Any, folder: str, rows: int) -> None:
    """Write a scores table, and a table of cosines without every hundredth row."""
    from pyspark.sql import functions as F

    from jobs.tables import delta
    from jobs.tables.scores import SCORES_TABLE

    ids = spark.range(rows)
    uid = F.md5(F.col("id").cast("string"))
    values = {
        "uid": uid,
        "scorer": F.lit("bench"),
        "image_sha": F.sha2(F.col("id").cast("string"), 256),
        "caption_sha": F.sha2(F.concat(F.lit("c"), "id"), 256),
        "copy": F.lit(0),
        "itm": F.rand(1) * 100,
        "odf": F.round(F.rand(2) * 100),  # ties: 101 values
        "ctq": F.rand(3) * 100,
        "su": F.rand(4) * 100,
        "status": F.when(F.rand(5) < 0.01, "bad_image").otherwise("ok"),
        "scored_at": F.current_timestamp(),
    }
    columns = [values.get(f.name, F.lit(None)).cast(f.dataType).alias(f.name) for f in SCORES_TABLE]
    delta.overwrite(ids.select(*columns), f"{folder}/scores", skipping=("uid",))
    cosines = ids.where("id % 100 > 0").select(
        uid.alias("uid"), (F.rand(6) / 2).alias("clip_score")
    )
    cosines.write.parquet(f"{folder}/clip")


def kept_by_sql(spark: Any, folder: str) -> int:
    """The number of rows that SQL keeps, with ties ranked in the same order."""
    (row,) = spark.sql(
        f"""
        WITH scored AS (
            SELECT s.*, c.clip_score AS cosine
            FROM delta.`{folder}/scores` s LEFT JOIN parquet.`{folder}/clip` c USING (uid)
            WHERE status = 'ok'
        ), tied AS (
            SELECT odf, count(*) AS n FROM scored GROUP BY odf
        ), ends AS (
            SELECT odf, sum(n) OVER (ORDER BY odf DESC) AS upto, n,
                   floor(sum(n) OVER () * 0.3) AS k FROM tied
        ), edge AS (
            SELECT odf, k - (upto - n) AS left FROM ends WHERE upto >= k AND upto - n < k
        ), ties AS (
            SELECT s.uid, row_number() OVER (ORDER BY xxhash64(s.uid), s.uid) AS position
            FROM scored s JOIN edge e ON s.odf = e.odf
        )
        SELECT count(*) FROM scored s CROSS JOIN edge e
        LEFT JOIN ties t ON s.uid = t.uid
        WHERE itm >= 40 AND su >= 10 AND cosine >= 0.2
          AND (s.odf > e.odf OR (s.odf = e.odf AND t.position <= e.left))
        """
    ).collect()
    return int(row[0])


def main() -> int:
    """Print the time, the memory and a line of JSON; exit code 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows (default 10 million)")
    options = parser.parse_args()
    os.environ["MLM_FILTER_MASTER"] = "local[2]"
    os.environ["MLM_FILTER_DRIVER_MEMORY"] = "2g"
    from jobs.core.session import get_spark
    from jobs.filter import job as filter_job
    from jobs.filter.settings import FilterConfig

    spark, _ = get_spark("bench")
    with tempfile.TemporaryDirectory() as folder:
        make_tables(spark, folder, options.rows)
        started = time.perf_counter()
        config = FilterConfig(
            scores=f"{folder}/scores",
            selection=f"{folder}/selection",
            rule=RULES,
            signals=[f"clip={folder}/clip"],
        )
        summary = filter_job.run(spark, config)
        seconds = time.perf_counter() - started
        exact = kept_by_sql(spark, folder) == summary["kept"]
    python_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    result = {"rows": options.rows, "seconds": round(seconds, 1), "kept": summary["kept"]}
    result |= {"exact": exact, "python_mb": round(python_mb), "signals": summary["signals"]}
    print(f"filter, {options.rows:,} rows: {seconds:.0f} s (bar {SECONDS:.0f} s at 10 million)")
    print(json.dumps(result))
    return int(seconds > SECONDS or not exact or python_mb > MEGABYTES)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    sys.exit(main())
