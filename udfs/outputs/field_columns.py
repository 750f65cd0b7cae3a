"""The fields of samples: their types in Parquet, and their values in JSON.

Spark's types all have a form in Parquet. JSON has fewer: times become text (ISO 8601), bytes become
text (base64), maps become objects; decimals are numbers if doubles or 64-bit integers hold all that
their type can, else text.
"""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
from pyarrow import types

from udfs.core.arrow_values import python_values

_DOUBLE_DIGITS, _INTEGER_DIGITS = 15, 18
_CYCLE = timedelta(days=146_097)  # 400 years


def written_type(kind: pa.DataType) -> pa.DataType:
    """The type under which a column is written: times are in UTC, whatever the session's zone."""
    return _with_leaves(kind, lambda leaf: _in_utc(leaf) if types.is_timestamp(leaf) else leaf)


def without_maps(kind: pa.DataType) -> pa.DataType:
    """The type with lists of `key` and `value` in place of maps, which `datasets` cannot read."""
    return _with_leaves(kind, lambda leaf: leaf, maps=False)


def written_columns(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The columns of a batch from Spark under their `written_type`, in memory of their own.

    In text, at any depth, bytes that are not UTF-8 become U+FFFD: Spark does not check.
    """
    columns = [_valid_text(c.cast(written_type(c.type))) for c in batch.columns]
    schema = pa.schema([f.with_type(c.type) for f, c in zip(batch.schema, columns, strict=True)])
    # Without `take` a column would keep the buffer of the whole batch, with its images.
    return pa.RecordBatch.from_arrays(columns, schema=schema).take(
        pa.array(range(len(batch)), pa.int64())
    )


def json_row(row: pa.RecordBatch) -> dict[str, Any]:
    """The values of a batch of one row as JSON can hold them, except for NaN and infinities."""
    return {name: _json_cell(row.column(n)) for n, name in enumerate(row.schema.names)}


def _json_cell(cell: pa.Array) -> Any:
    kind = _numbered(cell.type)
    numbered = cell if kind == cell.type else cell.cast(kind)
    return _json_value(numbered[0].as_py(), cell.type)


def _json_value(value: Any, kind: pa.DataType) -> Any:
    if value is None:
        return None
    if types.is_decimal(kind):
        return _json_number(value, kind)
    if types.is_binary(kind) or types.is_large_binary(kind):
        return base64.b64encode(value).decode()
    if types.is_temporal(kind):
        return _iso_time(value, kind)
    if types.is_map(kind):
        return {
            _json_key(_json_value(key, kind.key_type)): _json_value(item, kind.item_type)
            for key, item in value
        }
    if types.is_list(kind):
        return [_json_value(item, kind.value_type) for item in value]
    if types.is_struct(kind):
        return {field.name: _json_value(value[field.name], field.type) for field in kind}
    return value


def _iso_time(value: int, kind: pa.DataType) -> str:
    """Days or microseconds since 1970 as text. Python has no years below 1 and above 9999, but the
    calendar repeats: these have a sign, and may have more digits."""
    is_date = types.is_date(kind)
    unit = timedelta(days=1) if is_date else timedelta(microseconds=1)
    cycles, rest = divmod(value, _CYCLE // unit)
    moment = datetime(1970, 1, 1, tzinfo=None if is_date or kind.tz is None else UTC) + rest * unit
    year = moment.year + 400 * cycles
    text = (moment.date() if is_date else moment).isoformat()[4:]
    return f"{year:04}{text}" if 0 < year < 10_000 else f"{year:+05}{text}"


def _json_number(value: Any, kind: pa.DataType) -> int | float | str:
    """By the type, not by the value: so a column is numbers, or text, in all samples."""
    if kind.scale == 0 and kind.precision <= _INTEGER_DIGITS:
        return int(value)
    return float(value) if kind.precision <= _DOUBLE_DIGITS else format(value, "f")


def _json_key(key: Any) -> str:
    return key if isinstance(key, str) else json.dumps(key, ensure_ascii=False)


def _valid_text(column: pa.Array) -> pa.Array:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        if types.is_nested(column.type):
            values = column.cast(_with_leaves(column.type, _readable)).to_pylist()
            return pa.array(_decoded(values, pa.list_(column.type)), column.type)
        return pa.array(python_values(column), column.type)
    return column


def _readable(leaf: pa.DataType) -> pa.DataType:
    """A type whose values become Python objects whatever they are."""
    if types.is_string(leaf) or types.is_large_string(leaf):
        return pa.large_binary()
    return _number(leaf)


@functools.lru_cache(maxsize=256)
def _numbered(kind: pa.DataType) -> pa.DataType:
    """The type with numbers for times, whose years Python may not have."""
    return _with_leaves(kind, _number)


def _number(leaf: pa.DataType) -> pa.DataType:
    if types.is_timestamp(leaf):
        return pa.int64()
    return pa.int32() if types.is_date32(leaf) else leaf


def _decoded(value: Any, kind: pa.DataType) -> Any:
    if value is None:
        return None
    if types.is_string(kind) or types.is_large_string(kind):
        return value.decode("utf-8", "replace")
    if types.is_map(kind):
        return [(_decoded(k, kind.key_type), _decoded(v, kind.item_type)) for k, v in value]
    if types.is_list(kind):
        return [_decoded(item, kind.value_type) for item in value]
    if types.is_struct(kind):
        return {field.name: _decoded(value[field.name], field.type) for field in kind}
    return value


def _in_utc(kind: pa.TimestampType) -> pa.DataType:
    return pa.timestamp(kind.unit, kind.tz and "UTC")


def _with_leaves(
    kind: pa.DataType, leaf: Callable[[pa.DataType], pa.DataType], maps: bool = True
) -> pa.DataType:
    """The type with others in place of its plain types, at any depth; all of it nullable."""
    if types.is_map(kind):
        key, value = (_with_leaves(t, leaf, maps) for t in (kind.key_type, kind.item_type))
        return pa.map_(key, value) if maps else pa.list_(pa.struct({"key": key, "value": value}))
    if types.is_list(kind):
        return pa.list_(_with_leaves(kind.value_type, leaf, maps))
    if types.is_struct(kind):
        return pa.struct([pa.field(f.name, _with_leaves(f.type, leaf, maps)) for f in kind])
    return leaf(kind)
