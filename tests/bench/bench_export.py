"""Measures how long a uid file takes: `python tests/bench/bench_export.py [--rows N]`.

Bar: 10 million kept rows on two cores in under a minute, not counting the start of Spark.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

BAR_SECONDS = 60.0


def main() -> int:
    """Print one line of JSON; exit code 1 if 10 million rows or more miss the bar."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000, help="kept rows")
    rows = parser.parse_args().rows
    os.environ.setdefault("MLM_FILTER_MASTER", "local[2]")
    os.environ.setdefault("MLM_FILTER_DRIVER_MEMORY", "1536m")
    import numpy as np

    from jobs.core.session import get_spark
    from jobs.export.job import run
    from jobs.export.settings import ExportConfig
    from jobs.tables import delta

    spark, _ = get_spark("bench")
    with tempfile.TemporaryDirectory() as scratch:
        selection = spark.range(rows).selectExpr(
            "md5(string(id)) AS uid",
            "string(null) AS image_sha",
            "string(null) AS caption_sha",
            "true AS keep",
            "1 + int(id % 10 = 0) AS repetitions",
            "string(null) AS first_failed_rule",
        )
        delta.overwrite(selection, f"{scratch}/selection", skipping=["uid"])
        config = {"format": "uids", "selection": f"{scratch}/selection"}
        output = f"{scratch}/uids.npy"
        started = time.perf_counter()
        run(spark, ExportConfig.model_validate(config | {"output": output}))
        seconds = time.perf_counter() - started
        written = len(np.load(output, mmap_mode="r"))
    spark.stop()
    assert written == rows + -(-rows // 10)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    result = {"rows": rows, "uids": written, "seconds": round(seconds, 1), "python_peak_mb": peak}
    print(json.dumps(result))
    return int(rows >= 10_000_000 and seconds > BAR_SECONDS)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    sys.exit(main())
