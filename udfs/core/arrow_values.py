"""Values of Arrow and pandas columns: even where text is not valid UTF-8, never of a wrong type."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa

TEXT = "a string or binary"
BYTES = "binary"

_PYTHON = {TEXT: (str, bytes, bytearray), BYTES: (bytes, bytearray)}
_NAMES = {"str": "string", "bytes": "binary", "int": "bigint", "float": "double", "bool": "boolean"}
_NAMES |= {"int8": "tinyint", "int16": "smallint", "int32": "int", "int64": "bigint"}
_NAMES |= {"float32": "float", "float64": "double", "dict": "map", "Row": "struct"}


def as_bytes(value: Any) -> bytes:
    """The bytes of a bytes-like value.

    Raises TypeError for all else: `bytes` would take numbers for a length, and the raw memory of
    an array of objects for its content.
    """
    if isinstance(value, bytes):
        return value
    is_view = isinstance(value, memoryview) and value.format in ("B", "b", "c")
    if is_view or isinstance(value, bytearray):
        return bytes(value)
    raise TypeError(f"{TEXT} is needed, not {type_name(value)}")


def check_values(values: Iterable[Any], name: str, needs: str) -> None:
    """Raise TypeError, which names the column, unless all values are of the type `needs` (TEXT or
    BYTES) or None."""
    types = _PYTHON[needs]
    for value in values:
        if value is not None and not isinstance(value, types):
            raise TypeError(f"{name} is {type_name(value)}; it needs {needs}")


def type_name(value: Any) -> str:
    """A value's type as Spark calls it, such as `array<string>`, where it is one of Spark's."""
    if type(value).__name__ != "ndarray":
        return _NAMES.get(type(value).__name__, type(value).__name__)
    items = (item for item in value if item is not None)
    of_items = type_name(next(items, None)) if value.dtype == object else value.dtype.name
    return f"array<{_NAMES.get(of_items, of_items)}>"


def python_values(column: pa.Array) -> list[Any]:
    """The values of a column; in text, bytes that are not valid UTF-8 become U+FFFD.

    Spark passes strings on without checking them, and Arrow's own conversion raises an error at the
    first invalid one.
    """
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        binary = pa.binary() if pa.types.is_string(column.type) else pa.large_binary()
        return [
            None if value is None else value.decode("utf-8", "replace")
            for value in column.view(binary).to_pylist()
        ]
    return list(column.to_pylist())
