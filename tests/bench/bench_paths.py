"""Compares images by path below a root with the same bytes in the table, for a model that costs
nothing: `python tests/bench/bench_paths.py [--rows N] [--rounds N]`.

Bar: 0.9 of the rows/s.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

BAR = 0.9


def scored_rows(frame: Any, roots: Any) -> float:
    """Seconds to read, decode and answer all rows of a table, as scoring does."""
    import pyarrow as pa

    from udfs.core.arrow_values import python_values
    from udfs.inputs import images
    from udfs.scoring.batching import Limits, PairScorer, Prepared
    from udfs.scoring.results import Scored
    from udfs.scoring.stream import Meter, score_stream

    class Free(PairScorer):
        """Decodes, and answers without a model."""

        limits = Limits(1, 1)

        def prepare(self, image: Any, caption: Any) -> Prepared:
            images.decode(image)
            return Prepared(None, Scored("ok", None))

        def score_prepared(self, prepared: Sequence[Prepared], record: Any = None) -> list[Scored]:
            return [pair.answer for pair in prepared]

        def explain(self) -> list[str]:
            return []

    def score(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        pairs = (
            (python_values(batch.column("image")), python_values(batch.column("caption")))
            for batch in batches
        )
        for answers in score_stream(Free(), pairs, Meter(), read=roots.read if roots else None):
            good = sum(answer.status == "ok" for answer in answers)
            yield pa.RecordBatch.from_pydict({"good": [good]})

    started = time.perf_counter()
    good = sum(row[0] for row in frame.mapInArrow(score, "good long").collect())
    seconds = time.perf_counter() - started
    assert good == frame.count(), "an image was not read"
    return seconds


def main() -> int:
    """Print one line of JSON; exit code 1 below the bar."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000, help="images")
    parser.add_argument("--side", type=int, default=160, help="pixels of the longer side")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, in turn")
    options = parser.parse_args()
    os.environ.setdefault("MLM_FILTER_MASTER", "local[2]")
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
    from pictures import encoded, picture

    from jobs.core.session import get_spark
    from jobs.tables import delta
    from udfs.inputs.image_roots import ImageRoots

    spark, _ = get_spark("bench")
    with tempfile.TemporaryDirectory() as scratch:
        size = options.side, options.side * 3 // 4
        different = [encoded(picture(*size, n), "JPEG") for n in range(100)]
        rows = []
        for number in range(options.rows):
            path = Path(scratch, "images", f"{number // 1000:04}", f"{number:07}.jpg")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(different[number % len(different)])
            rows.append((str(path), "a caption"))
        paths = spark.createDataFrame(rows, "image string, caption string")
        delta.overwrite(paths.repartition(4), f"{scratch}/paths")
        inside = spark.read.format("binaryFile").option("recursiveFileLookup", "true")
        bytes_of = inside.load(f"{scratch}/images").selectExpr("content AS image", "'a' AS caption")
        delta.overwrite(bytes_of.repartition(4), f"{scratch}/inside")
        roots = ImageRoots.of([f"{scratch}/images"])
        seconds: dict[str, list[float]] = {"inside": [], "paths": []}
        for number in range(options.rounds + 1):
            for name, read in (("inside", None), ("paths", roots)):
                taken = scored_rows(delta.read(spark, f"{scratch}/{name}"), read)
                if number:  # the first round warms up
                    seconds[name].append(taken)
    spark.stop()
    medians = {name: sorted(values)[len(values) // 2] for name, values in seconds.items()}
    result = {
        "rows": options.rows,
        "bytes_each": sum(map(len, different)) // len(different),
        "rows_per_s_inside": round(options.rows / medians["inside"]),
        "rows_per_s_paths": round(options.rows / medians["paths"]),
        "paths_over_inside": round(medians["inside"] / medians["paths"], 3),
    }
    print(json.dumps(result))
    return int(result["paths_over_inside"] < BAR)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    sys.exit(main())
