"""Arrow columns as Python values, even where text is not valid UTF-8."""

from __future__ import annotations

from typing import Any

import pyarrow as pa


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
