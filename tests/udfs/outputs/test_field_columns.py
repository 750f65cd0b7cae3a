"""Fields of any type, from Arrow to Parquet and JSON and back; nested types by Hypothesis."""

import base64
import io
import json
import math
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import types

from udfs.outputs.field_columns import json_row, without_maps, written_columns, written_type
from udfs.outputs.tar_shards import _json

ZONE = "America/New_York"
MICROSECONDS = st.integers(-(2**60), 2**60)  # years -34,000 to 38,000
LEAVES: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.bool_(), st.booleans()),
    (pa.int8(), st.integers(-128, 127)),
    (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    (pa.float32(), st.floats(width=32, allow_nan=False)),  # NaN is not equal to itself
    (pa.float64(), st.floats(allow_nan=False)),
    (pa.decimal128(10, 2), st.decimals(-9, 9, places=2)),
    (pa.decimal128(38, 18), st.decimals(-9, 9, places=18)),
    (pa.string(), st.text(st.characters(codec="utf-8"))),
    (pa.binary(), st.binary()),
    (pa.date32(), st.integers(-(10**6), 10**6)),
    (pa.timestamp("us", ZONE), MICROSECONDS),
    (pa.timestamp("us"), MICROSECONDS),
]


def lists(inner: tuple[pa.DataType, st.SearchStrategy[Any]]) -> Any:
    return pa.list_(inner[0]), st.lists(st.none() | inner[1], max_size=3)


def maps(inner: tuple[pa.DataType, st.SearchStrategy[Any]]) -> Any:
    items = st.dictionaries(st.text(max_size=2), st.none() | inner[1], max_size=3)
    return pa.map_(pa.string(), inner[0]), items.map(lambda values: list(values.items()))


def structs(members: list[tuple[pa.DataType, st.SearchStrategy[Any]]]) -> Any:
    names = [f"m{number}" for number in range(len(members))]
    kind = pa.struct([(name, m[0]) for name, m in zip(names, members, strict=True)])
    values = [st.none() | member[1] for member in members]
    return kind, st.fixed_dictionaries(dict(zip(names, values, strict=True)))


TYPES = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.one_of(
        inner.map(lists), inner.map(maps), st.lists(inner, min_size=1, max_size=3).map(structs)
    ),
    max_leaves=5,
)


@st.composite
def columns(draw: st.DrawFn) -> pa.Array:
    kind, values = draw(TYPES)
    return pa.array(draw(st.lists(st.none() | values, min_size=1, max_size=4)), kind)


@settings(deadline=None, max_examples=150)
@given(columns(), st.integers(0, 3))
def test_any_type_is_written_whole(column: pa.Array, start: int) -> None:
    column = column.slice(min(start, len(column) - 1))
    batch = pa.RecordBatch.from_arrays([column], ["x"])
    written = written_columns(batch)
    assert written.schema.field("x").type == written_type(column.type)
    assert written.column(0).equals(column.cast(written_type(column.type)))
    file = io.BytesIO()
    plain = written.column(0).cast(without_maps(column.type))
    pq.write_table(pa.table({"x": written.column(0), "y": plain}), file)
    read = pq.read_table(file)
    assert read["x"].combine_chunks().cast(written.column(0).type).equals(written.column(0))
    assert read["y"].combine_chunks().cast(plain.type).equals(plain)
    datasets.Features.from_arrow_schema(pa.schema([("y", written_type(plain.type))]))
    for row in range(len(column)):
        found = json.loads(_json(json_row(written.slice(row, 1))), parse_constant=pytest.fail)
        assert_same(found.get("x"), written.column(0)[row], written.column(0).type)


def assert_same(found: Any, cell: pa.Scalar, kind: pa.DataType) -> None:
    """That a value of JSON says all that an Arrow value does."""
    if not cell.is_valid:
        assert found is None
    elif types.is_struct(kind):
        for field in kind:
            assert_same(found[field.name], cell[field.name], field.type)
    elif types.is_map(kind) or types.is_list(kind):
        if types.is_map(kind):
            assert list(found) == [key for key, _ in cell.as_py()] if in_range(cell) else True
        assert len(found) == len(cell.values)
        items = found.values() if types.is_map(kind) else found
        inner = kind.item_type if types.is_map(kind) else kind.value_type
        for number, item in enumerate(items):
            value = cell.values[number]
            assert_same(item, value["value"] if types.is_map(kind) else value, inner)
    elif types.is_floating(kind):
        value = cell.as_py()
        assert found == (value if math.isfinite(value) else None)
    elif types.is_binary(kind):
        assert base64.b64decode(found) == cell.as_py()
    elif types.is_decimal(kind):
        assert Decimal(str(found)) == cell.as_py()
        assert isinstance(found, str) == (kind.precision > 15)
    elif types.is_temporal(kind):
        if in_range(cell):
            read = datetime if types.is_timestamp(kind) else date
            assert read.fromisoformat(found) == cell.as_py()
        else:
            assert isinstance(found, str)
    else:
        assert found == cell.as_py()


def in_range(cell: pa.Scalar) -> bool:
    try:
        cell.as_py()
    except (ValueError, OverflowError):
        return False
    return True


def test_broken_text_is_replaced_at_any_depth() -> None:
    data = pa.array([b"a\xff", None, b"ok"], pa.binary())
    broken = pa.Array.from_buffers(pa.string(), 3, data.buffers())
    far = pa.array([2**60, 0, None], pa.timestamp("us", ZONE))
    days = pa.array([10**7, 0, None], pa.date32())
    offsets = pa.array([0, 1, 1, 3], pa.int32())
    arrays = {
        "text": broken,
        "list": pa.ListArray.from_arrays(offsets, broken),
        "struct": pa.StructArray.from_arrays([broken, far, days], names=["s", "t", "d"]),
        "map": pa.MapArray.from_arrays(offsets, pa.array(["k", "l", "m"]), broken),
    }
    batch = pa.RecordBatch.from_arrays(list(arrays.values()), list(arrays))
    written = written_columns(batch)
    written.validate(full=True)
    assert json_row(written.slice(0, 1)) == {
        "text": "a\ufffd",
        "list": ["a\ufffd"],
        "struct": {"s": "a\ufffd", "t": "+38504-08-17T21:30:06.846976+00:00", "d": "+29349-01-26"},
        "map": {"k": "a\ufffd"},
    }
    assert written.slice(2, 1).column("list").to_pylist() == [[None, "ok"]]
    assert written.column("struct").field(1).cast(pa.int64()).to_pylist() == [2**60, 0, None]
