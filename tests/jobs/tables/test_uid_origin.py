"""The table property that says whose the uids are."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import encoded, picture
from pyspark.sql import SparkSession
from tiny_pairs import Score

from jobs.core.errors import UsageError
from jobs.export.job import run as export
from jobs.export.settings import ExportConfig
from jobs.filter.job import run as filter_pairs
from jobs.filter.settings import FilterConfig
from jobs.ingest.job import run as ingest
from jobs.ingest.settings import IngestConfig
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


@pytest.mark.long
@pytest.mark.spark
@pytest.mark.slow
@pytest.mark.parametrize("origin", ["given", "made_up"])
def test_uids_go_unchanged_from_the_source_to_the_export(
    spark: SparkSession,
    run_score: Score,
    tmp_path: Path,
    origin: Origin,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = "UID" if origin == "given" else "number"
    uids = [f"{number + 10:032X}" for number in range(3)]
    images = [encoded(picture(20, 20, number), "PNG") for number in range(3)]
    table = pa.table({name: uids, "IMAGE": images, "TEXT": ["one", "two", "three"]})
    pq.write_table(table, tmp_path / "laion.parquet")
    refs = {kind: str(tmp_path / kind) for kind in ("pairs", "scores", "selection", "output")}
    config = {"source": "parquet", "input": str(tmp_path / "laion.parquet")}
    config |= {"output": refs["pairs"], "caption_column": "text"}
    ingest(spark, IngestConfig.model_validate(config))
    run_score(pairs=refs["pairs"], scores=refs["scores"], uid_column="UID")
    tables = {key: refs[key] for key in ("scores", "selection", "pairs", "output")}
    filter_pairs(spark, FilterConfig(**tables, rule=["itm >= 0"]))
    for ref in refs.values():
        found = {row["uid"] for row in delta.read(spark, ref).select("uid").collect()}
        assert found == set(uids) or origin == "made_up"
        assert uid_origin.of(spark, ref) == origin

    path = tmp_path / "uids.npy"
    options: dict[str, Any] = {"format": "uids", "selection": refs["selection"]}
    options |= {"output": str(path)}
    if origin == "made_up":
        with pytest.raises(UsageError, match="were made up by ingest.*--made-up-uids"):
            export(spark, ExportConfig(**options))
        assert not path.exists()
        options["made_up_uids"] = True
    export(spark, ExportConfig(**options))
    numbers = {int(high) << 64 | int(low) for high, low in np.load(path).tolist()}
    assert numbers == {10, 11, 12} or origin == "made_up"
    assert ("note: the uids" in capsys.readouterr().err) == (origin == "made_up")
    uid_origin.record(spark, refs["selection"], None)
    export(spark, ExportConfig(**options))
    assert "does not say whether its uids are yours" in capsys.readouterr().err
