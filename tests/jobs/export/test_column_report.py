"""Which columns are named as left out, and what the card of a folder of tars says; no session."""

from typing import Any

import datasets
import pytest
from pyspark.sql import types as T

from jobs.export.column_report import other_types, overshadowed, report, reserved
from jobs.export.dataset_card import tar_features
from jobs.export.settings import ExportConfig


def config(**options: Any) -> ExportConfig:
    required = {"format": "parquet", "output": "o", "selection": "s", "pairs": "p"}
    return ExportConfig.model_validate(required | options)


def test_columns_whose_name_another_one_gets_are_named() -> None:
    columns = ["uid", "id", "Caption", "text", "image", "photo", "path", "read_error"]
    assert overshadowed(config(), columns) == {}
    other = config(uid_column="id", caption_column="text", image_column="photo")
    assert overshadowed(other, columns) == {
        "uid": "id is written under this name",
        "caption": "text is written under this name",
        "image": "photo is written under this name",
    }
    assert overshadowed(other, ["id", "text", "photo"]) == {}
    assert reserved(other, columns)["photo"] == ""  # its bytes are the image
    paths = reserved(config(image_path_column="path", image_root=["/"]), columns)
    assert paths["image"] == "--image-path-column is read instead"
    assert "path" not in paths
    assert {name for name, reason in paths.items() if reason} == {"image", "read_error"}


def test_a_line_for_each_column(capsys: pytest.CaptureFixture[str]) -> None:
    read = T.StructType().add("a b", T.TimestampNTZType()).add("c", T.LongType())
    written = T.StructType().add("a_b", T.TimestampType()).add("c", T.LongType())
    changed = other_types(read, written)
    assert changed == {"a b": "timestamp_ntz is written as a_b, timestamp"}
    assert report({"key": "why"}, changed) == {
        "columns_left_out": {"key": "why"},
        "columns_changed": changed,
    }
    assert capsys.readouterr().err.splitlines() == [
        "left out: column key (why)",
        "column a b: timestamp_ntz is written as a_b, timestamp",
    ]


def test_the_card_has_features_that_datasets_understands() -> None:
    box = T.StructType().add("x", T.IntegerType()).add("at", T.DateType())
    types = {
        "uid": T.StringType(),
        "truth": T.BooleanType(),
        "one": T.ByteType(),
        "x": T.FloatType(),
        "small": T.DecimalType(9, 0),
        "price": T.DecimalType(10, 2),
        "exact": T.DecimalType(38, 2),
        "seen": T.TimestampType(),
        "mask": T.BinaryType(),
        "sizes": T.ArrayType(T.ArrayType(T.IntegerType())),
        "boxes": T.ArrayType(box),
    }
    fields = T.StructType([T.StructField(name, kind) for name, kind in types.items()])
    features = tar_features(fields, ["jpg", "png"])
    assert features
    found = datasets.Features._from_yaml_list(features)
    assert found["jpg"] == found["png"] == datasets.Image()
    assert found["json"] == {
        "uid": datasets.Value("string"),
        "truth": datasets.Value("bool"),
        "one": datasets.Value("int64"),
        "x": datasets.Value("float64"),
        "small": datasets.Value("int64"),
        "price": datasets.Value("float64"),
        "exact": datasets.Value("string"),
        "seen": datasets.Value("string"),
        "mask": datasets.Value("string"),
        "sizes": datasets.List(datasets.List(datasets.Value("int64"))),
        "boxes": datasets.List({"x": datasets.Value("int64"), "at": datasets.Value("string")}),
        "key": datasets.Value("string"),
        "caption": datasets.Value("string"),
    }
    counts = T.MapType(T.StringType(), T.IntegerType())
    for kind in (counts, T.ArrayType(counts), T.StructType().add("m", counts)):
        assert tar_features(T.StructType().add("x", kind), ["jpg"]) is None
    assert tar_features(T.StructType().add("metadata", T.StringType()), ["jpg"]) is None
