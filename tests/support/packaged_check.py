"""Scores a few pairs on a small cluster of processes whose only mlm-filter is the shipped zip:

    spark-submit --master "local-cluster[2,1,1024]" --py-files dist/mlm_filter.zip \
        tests/support/packaged_check.py

.ci/run does so in an environment that has the dependencies but not the package.
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import tiny_models
from pyspark.sql import SparkSession

import udfs
from udfs.models.model_config import ModelConfig
from udfs.spark import mlm_scores

if TYPE_CHECKING:
    import pandas as pd

PAIRS = 6


def picture(shade: int) -> bytes:
    """A PNG of one colour."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (40, 30), (shade, 255 - shade, 90)).save(file, "PNG")
    return file.getvalue()


def main() -> int:
    """Raise if a part of the package is not found, or a pair has no scores."""
    assert "mlm_filter.zip" in str(udfs.__file__), udfs.__file__
    from mlm_filter.jobs.core.settings import conf_file

    assert conf_file("sample_pairs.yaml").is_file(), "conf/ is not in the zip"

    spark = SparkSession.builder.getOrCreate()
    rows = [(str(n), picture(40 * n), f"a plain picture, number {n}") for n in range(PAIRS)]
    pairs = spark.createDataFrame(rows, "uid string, image binary, caption string").repartition(2)

    def package_file(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        import udfs

        for batch in batches:
            yield batch[["uid"]].assign(file=udfs.__file__)

    imported = pairs.mapInPandas(package_file, "uid string, file string").collect()
    assert all("mlm_filter.zip" in row.file for row in imported), imported

    with tempfile.TemporaryDirectory() as folder:
        config = ModelConfig(model=str(tiny_models.llava(Path(folder))))
        scored = pairs.select("uid", mlm_scores("image", "caption", config).alias("s"))
        scores = scored.select("uid", "s.*").collect()
    assert len(scores) == PAIRS
    for row in scores:
        assert row.status == "ok", row
        assert all(0 <= row[metric] <= 100 for metric in ("itm", "odf", "ctq", "su")), row
    spark.stop()
    print(f"{PAIRS} pairs scored by executors that have mlm-filter only from its zip")
    return 0


if __name__ == "__main__":
    sys.exit(main())
