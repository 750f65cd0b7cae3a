"""Captions of one image go back to the image's own uid in DataComp's file."""

import pytest
from pyspark.sql import SparkSession

from jobs.export.uids import count_uids, of_source

pytestmark = pytest.mark.spark


def test_numbered_uids_lose_their_number(spark: SparkSession) -> None:
    uid, other = "0123456789ABCDEF" * 2, "f" * 32
    rows = spark.createDataFrame(
        [(f"{uid}#0", 1), (f"{uid}#11", 2), (other, 1)], "uid string, repetitions int"
    )
    found = of_source(rows)
    assert sorted(row["uid"] for row in found.collect()) == sorted([uid, uid, other])
    assert count_uids(found) == (3, 4)
    odd = spark.createDataFrame([("a#0",)], "uid string")
    assert of_source(odd).collect()[0]["uid"] == "a#0"
