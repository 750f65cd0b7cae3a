"""The table property that says whose the uids are."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from jobs.tables import delta, uid_origin
from jobs.tables.uid_origin import Origin

ORIGINS: list[Origin | None] = ["given", "made_up", "mixed", None]


@pytest.mark.spark
@pytest.mark.parametrize("by_name", [False, True])
def test_it_is_recorded_by_path_and_by_name(
    spark: SparkSession, tmp_path: Path, by_name: bool
) -> None:
    ref = "default.uids_of_table" if by_name else str(tmp_path / "a`b")
    delta.overwrite(spark.range(1), ref)
    try:
        assert uid_origin.of(spark, ref) is None
        for origin in ORIGINS:
            uid_origin.record(spark, ref, origin)
            assert uid_origin.of(spark, ref) == origin
            version = delta.version(spark, ref)
            uid_origin.record(spark, ref, origin)  # nothing new: no further version
            assert delta.version(spark, ref) == version
    finally:
        if by_name:
            spark.sql(f"DROP TABLE {ref}")


@given(st.lists(st.sampled_from(ORIGINS), min_size=1))
def test_made_up_uids_are_never_lost_among_others(origins: list[Origin | None]) -> None:
    origin = uid_origin.combined(*origins)
    assert origin == uid_origin.combined(*reversed(origins), *origins)
    if {"made_up", "mixed"} & set(origins):
        assert origin == ("made_up" if set(origins) == {"made_up"} else "mixed")
    else:
        assert origin == ("given" if set(origins) == {"given"} else None)
