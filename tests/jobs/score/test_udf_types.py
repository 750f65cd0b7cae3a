"""What executor code takes for images and captions: bytes and text, and nothing that only looks
like memory. `bytes` of an array of objects would be addresses, other ones in each run."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from udfs import spark as udfs_spark
from udfs.core.arrow_values import BYTES, TEXT, as_bytes, check_values, type_name
from udfs.core.metrics import METRICS
from udfs.inputs import captions, images
from udfs.models.model_config import ModelConfig
from udfs.signals import rows as signal_rows

LISTS: Any = np.array(["one", "two"], dtype=object)
NOT_BYTES = [LISTS, memoryview(LISTS), np.arange(3, dtype=np.int8), 3, 10**12, 0.5, [1], {"a": 1}]


@pytest.mark.parametrize("value", NOT_BYTES, ids=lambda value: type(value).__name__)
def test_no_entry_takes_other_values_for_bytes(value: Any) -> None:
    with pytest.raises(TypeError, match="a string or binary is needed"):
        as_bytes(value)
    with pytest.raises(TypeError):
        captions.clean(value)
    with pytest.raises(images.ImageError, match="not the bytes of an image"):
        images.decode(value)
    with (
        pytest.raises(images.ImageError, match="not the bytes of an image"),
        images.open_image(value),
    ):
        pass
    options = signal_rows.SignalOptions(signals=frozenset({"length"}))
    with pytest.raises(TypeError):
        signal_rows.measure(lambda: None, value, options)
    for needs in (TEXT, BYTES):
        with pytest.raises(TypeError, match=f"f: caption is .*; it needs {needs}"):
            check_values([None, value], "f: caption", needs)


@given(st.binary(max_size=20))
def test_bytes_are_taken_as_they_are(data: bytes) -> None:
    kinds = (data, bytearray(data), memoryview(data))
    assert {as_bytes(kind) for kind in kinds} == {data}
    assert len({captions.clean(kind) for kind in kinds}) == 1


def test_types_are_named_as_spark_names_them() -> None:
    names = {
        "array<string>": LISTS,
        "array<tinyint>": np.arange(3, dtype=np.int8),
        "array<array<string>>": np.array([None, LISTS], dtype=object),
        "bigint": np.int64(1),
        "double": 1.5,
        "string": "a",
    }
    assert {name: type_name(value) for name, value in names.items()} == {n: n for n in names}


def test_batches_are_checked_before_anything_is_scored() -> None:
    score, _ = udfs_spark.score_batches(ModelConfig(), ["uid"], "image")
    for image, caption, message in (
        (pa.array([b"x"]), pa.array([["a"]]), "caption is .*; it needs a string or binary"),
        (pa.array(["path"]), pa.array(["a"]), "image is string; it needs binary"),
    ):
        batch = pa.RecordBatch.from_pydict({"uid": ["1"], "image": image, "caption": caption})
        with pytest.raises(TypeError, match=message):
            next(score(iter([batch])))


@pytest.mark.spark
def test_sql_functions_name_the_column_and_its_type(
    spark: SparkSession, scoring_model: str
) -> None:
    config = ModelConfig(scoring_model)
    names = udfs_spark.register_functions(spark, config)
    assert len(names) == 2 + len(METRICS)
    spark.sql(
        "SELECT X'FF' AS image, 'a' AS caption, array('a', 'b') AS captions, 1 AS number,"
        " named_struct('bytes', X'FF', 'path', 'p') AS struct, 'x.jpg' AS path"
    ).createOrReplaceTempView("odd_types")
    for call, message in (
        ("mlm_scores(image, captions)", "mlm_scores: caption is array<string>; it needs a string"),
        ("mlm_score(image, number)", "mlm_score: caption is int; it needs a string or binary"),
        ("mlm_itm(struct, caption)", "mlm_itm: image is struct<bytes,path>; it needs binary"),
        ("mlm_su(path, caption)", "mlm_su: image is string; it needs binary"),
    ):
        with pytest.raises(Exception, match=message):
            spark.sql(f"SELECT {call} FROM odd_types").collect()
    frame = spark.table("odd_types")
    with pytest.raises(Exception, match="caption.*ARRAY<STRING>"):  # Spark's own, before it runs
        frame.select(udfs_spark.mlm_scores("image", frame.captions.alias("caption"), config))
