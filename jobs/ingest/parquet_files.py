"""The Parquet files below a path on this machine, and which of their columns Spark can read.

Reads footers only. Spark takes any file of a folder for Parquet, and refuses all of them for one
column of a type that it does not know, without its name; given the files and a schema without such
columns, it reads the rest.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import types as T

from udfs.inputs.folder_walk import walk_files

from ..core.errors import UsageError
from ..core.job_runner import say

MANY_FILES = 1000
"""From so many files on, reading their footers takes a while, and is announced."""

UUID = "uuid"
NANOSECONDS = "nanoseconds"
NANOSECONDS_IN_UTC = "nanoseconds in UTC"

_MAGIC = b"PAR1"
_SUMMARIES = ("_metadata", "_common_metadata")
_NAMES = {"halffloat": "float16", "extension<arrow.uuid>": "uuid"}
_SIMPLE: tuple[tuple[Any, T.DataType], ...] = (
    (pa.types.is_boolean, T.BooleanType()),
    (pa.types.is_int8, T.ByteType()),
    (lambda t: pa.types.is_int16(t) or pa.types.is_uint8(t), T.ShortType()),
    (lambda t: pa.types.is_int32(t) or pa.types.is_uint16(t), T.IntegerType()),
    (lambda t: pa.types.is_int64(t) or pa.types.is_uint32(t), T.LongType()),
    (pa.types.is_duration, T.LongType()),
    (pa.types.is_uint64, T.DecimalType(20, 0)),
    (pa.types.is_float32, T.FloatType()),
    (pa.types.is_float64, T.DoubleType()),
    (pa.types.is_date, T.DateType()),
    (lambda t: str(t) in ("string", "large_string", "string_view"), T.StringType()),
    (lambda t: str(t) in ("binary", "large_binary", "binary_view"), T.BinaryType()),
    (pa.types.is_fixed_size_binary, T.BinaryType()),
    (pa.types.is_null, T.NullType()),
)
_CONVERTED: dict[str, T.DataType] = {
    UUID: T.BinaryType(),
    NANOSECONDS: T.LongType(),
    NANOSECONDS_IN_UTC: T.LongType(),
}
_INTEGERS = (T.ByteType, T.ShortType, T.IntegerType, T.LongType)  # from narrow to wide


@dataclass
class ParquetFiles:
    """What the footers of some Parquet files say.

    Attributes:
        files: the data files, each with the names of columns in it that hold nothing at all, and
            so have no type, where other files have one.
        rows: of all of them.
        schema: the columns that Spark can read, with their types.
        unreadable: columns that it cannot read, by their name in lower case: which, and why.
        converted: columns that are of another type in `schema`, and what they are: UUID (binary),
            NANOSECONDS and NANOSECONDS_IN_UTC (numbers).
        images_by_path: structs of `bytes` and `path` that may have rows with a path only.
        hidden: files that Spark passes over because of their names, and their rows.
    """

    files: dict[str, frozenset[str]] = field(default_factory=dict)
    rows: int = 0
    schema: T.StructType = field(default_factory=T.StructType)
    unreadable: dict[str, str] = field(default_factory=dict)
    converted: dict[str, str] = field(default_factory=dict)
    images_by_path: set[str] = field(default_factory=set)
    hidden: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Column:
    name: str
    type: T.DataType | None  # None: Spark cannot read it
    text: str
    converted: str  # "", or as in `ParquetFiles`
    has_paths_only: bool


def survey(root: str, option: str) -> ParquetFiles:
    """The Parquet files at or below `root`. `option` is for messages, such as `--input data`.

    Raises UsageError if there are none, or one is damaged.
    """
    if os.path.isdir(os.path.join(root, "_delta_log")):
        raise UsageError(f"{option} is a Delta table: read it with --source delta")
    found = ParquetFiles()
    paths: list[str] = []
    for path in walk_files(root, broken=True) if os.path.isdir(root) else [root]:
        if os.path.exists(path) and not os.path.isfile(path):
            continue  # a pipe, which opening would wait for; a broken link is an error
        if not _is_hidden(os.path.relpath(path, os.path.dirname(root) if path == root else root)):
            if path.lower().endswith((".parquet", ".parq", ".pq")) or _has_magic(path):
                paths.append(path)
        elif os.path.basename(path) not in _SUMMARIES and _has_magic(path):
            found.hidden[path] = pq.read_metadata(path).num_rows
    if not paths and found.hidden:
        raise UsageError(f"{option}: Spark reads no files whose names begin with _ or .; rename it")
    if not paths:
        what = "there is no Parquet file in it" if os.path.isdir(root) else "it is none"
        raise UsageError(f"{option}: cannot be read as Parquet: {what}")
    if len(paths) >= MANY_FILES:
        say(f"reading the footers of {len(paths):,} Parquet files ...")
    with ThreadPoolExecutor(8) as pool:
        footers = list(pool.map(lambda path: _footer(path, root, option), paths))
    _merge(found, root, dict(zip(paths, (columns for _, columns in footers), strict=True)))
    found.rows = sum(rows for rows, _ in footers)
    return found


def _is_hidden(path: str) -> bool:
    """Whether Spark passes over a file of this name, or in a folder of this name."""
    return any(
        part.startswith(".") or part.startswith("_") and "=" not in part
        for part in path.split(os.sep)
    )


def _has_magic(path: str) -> bool:
    if not os.path.isfile(path):  # a broken link
        return False
    with open(path, "rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def _footer(path: str, root: str, option: str) -> tuple[int, list[_Column]]:
    """Rows and columns of one file."""
    try:
        metadata = pq.read_metadata(path)
        return metadata.num_rows, list(_columns(metadata))
    except (OSError, pa.ArrowException) as error:
        name = "" if path == root else f"{os.path.relpath(path, root)}: "
        reason = str(error).splitlines()[0]
        raise UsageError(f"{option}: cannot be read as Parquet: {name}{reason}") from None


def _columns(metadata: pq.FileMetaData) -> Iterator[_Column]:
    first = 0
    for column in metadata.schema.to_arrow_schema():
        count = _leaf_count(column.type)
        leaves = [metadata.schema.column(n) for n in range(first, first + count)]
        is_uuid = not _children(column.type) and leaves[0].logical_type.type == "UUID"
        # INT96, in which Spark itself writes timestamps, has no unit; Arrow calls it nanoseconds.
        int96 = any(leaf.physical_type == "INT96" for leaf in leaves)
        is_nano = pa.types.is_timestamp(column.type) and column.type.unit == "ns" and not int96
        converted = UUID if is_uuid else ""
        if is_nano:
            converted = NANOSECONDS_IN_UTC if column.type.tz else NANOSECONDS
        spark_type = _CONVERTED.get(converted) or _spark_type(column.type, int96)
        text = spark_type.simpleString() if spark_type and not converted else str(column.type)
        for arrow_name, name in _NAMES.items():
            text = text.replace(arrow_name, name)
        has_paths_only = isinstance(spark_type, T.StructType) and _has_paths_only(
            metadata, first, spark_type.names
        )
        yield _Column(column.name, spark_type, text, converted, has_paths_only)
        first += count


def _children(data_type: pa.DataType) -> list[pa.Field]:
    if pa.types.is_map(data_type):
        return [data_type.key_field, data_type.item_field]
    if pa.types.is_struct(data_type):
        return list(data_type)
    if pa.types.is_nested(data_type) and hasattr(data_type, "value_field"):  # any kind of list
        return [data_type.value_field]
    return []


def _leaf_count(data_type: pa.DataType) -> int:
    if isinstance(data_type, pa.BaseExtensionType):
        data_type = data_type.storage_type
    children = _children(data_type)
    return sum(_leaf_count(child.type) for child in children) if children else 1


def _spark_type(arrow: pa.DataType, int96: bool) -> T.DataType | None:
    """The type with which Spark 4.2 reads a column; None if it refuses to."""
    if isinstance(arrow, pa.BaseExtensionType):
        is_uuid = arrow.extension_name == "arrow.uuid"
        return None if is_uuid else _spark_type(arrow.storage_type, int96)
    if pa.types.is_dictionary(arrow):
        return _spark_type(arrow.value_type, int96)
    if pa.types.is_timestamp(arrow):
        if arrow.unit == "ns" and not int96:
            return None
        return T.TimestampType() if arrow.tz or int96 else T.TimestampNTZType()
    if pa.types.is_decimal(arrow):
        return T.DecimalType(arrow.precision, arrow.scale) if arrow.precision <= 38 else None
    if children := _children(arrow):
        types = [_spark_type(child.type, int96) for child in children]
        known = [each for each in types if each is not None]
        if len(known) < len(types):
            return None
        known = [T.IntegerType() if isinstance(t, T.NullType) else t for t in known]
        if pa.types.is_map(arrow):
            return T.MapType(known[0], known[1])
        if pa.types.is_struct(arrow):
            names = [child.name for child in children]
            return T.StructType(list(map(T.StructField, names, known)))
        return T.ArrayType(known[0])
    return next((spark_type for fits, spark_type in _SIMPLE if fits(arrow)), None)


def _has_paths_only(metadata: pq.FileMetaData, first: int, names: Sequence[str]) -> bool:
    """Whether a row may have no `bytes`, so far as the statistics of the file tell."""
    if list(names) not in (["bytes", "path"], ["path", "bytes"]):
        return "bytes" in names and "path" in names
    leaf = first + list(names).index("bytes")
    columns = [metadata.row_group(n).column(leaf) for n in range(metadata.num_row_groups)]
    known = [c.is_stats_set and c.statistics.has_null_count for c in columns]
    return not all(known) or any(c.statistics.null_count for c in columns)


def _merge(found: ParquetFiles, root: str, files: dict[str, list[_Column]]) -> None:
    """Fill in the columns of all files together. As in Spark, case tells no names apart."""
    columns: dict[str, dict[str, tuple[str, _Column]]] = {}  # name -> type -> file, column
    repeated: dict[str, str] = {}
    for path, own in files.items():
        where = os.path.basename(path) if path == root else os.path.relpath(path, root)
        times = Counter(column.name.lower() for column in own)
        for column in own:
            key = column.name.lower()
            columns.setdefault(key, {}).setdefault(column.text, (where, column))
            if column.has_paths_only:
                found.images_by_path.add(key)
            if times[key] > 1 and key not in repeated:
                names = " and ".join(c.name for c in own if c.name.lower() == key)
                repeated[key] = f"{names} have one name (case aside) in {where}"
    for key, by_type in columns.items():
        _, first = next(iter(by_type.values()))
        typed = [c for _, c in by_type.values() if not isinstance(c.type, T.NullType)]
        together = reduce(_wider, (c.type for c in typed)) if typed else T.IntegerType()
        if len({c.converted for c in typed}) > 1:
            together = None
        if key in repeated:
            found.unreadable[key] = repeated[key]
        elif together is not None:
            found.schema.add(T.StructField(first.name, together))
            if typed and typed[0].converted:
                found.converted[first.name] = typed[0].converted
        elif len(by_type) == 1:
            found.unreadable[key] = f"{first.name} is {first.text}, which Spark does not read"
        else:
            found.unreadable[key] = f"{first.name} is " + ", ".join(
                f"{text} in {where}" for text, (where, _) in by_type.items()
            )
    typed_names = {key for key, by_type in columns.items() if len(by_type) > 1}
    for path, own in files.items():
        empty = {c.name.lower() for c in own if isinstance(c.type, T.NullType)}
        found.files[path] = frozenset(empty & typed_names)


def _wider(one: T.DataType | None, other: T.DataType | None) -> T.DataType | None:
    """The type as which Spark reads columns of both types; None if there is none."""
    if one is None or other is None or one == other:
        return one if one == other else None
    if isinstance(one, _INTEGERS) and isinstance(other, _INTEGERS):
        return max(one, other, key=lambda each: _INTEGERS.index(type(each)))
    if {type(one), type(other)} == {T.FloatType, T.DoubleType}:
        return T.DoubleType()
    if isinstance(one, T.ArrayType) and isinstance(other, T.ArrayType):
        element = _wider(one.elementType, other.elementType)
        return T.ArrayType(element) if element else None
    if isinstance(one, T.StructType) and isinstance(other, T.StructType):
        fields = {field.name: field.dataType for field in one}
        for each in other:
            wider = _wider(fields.get(each.name, each.dataType), each.dataType)
            if wider is None:
                return None
            fields[each.name] = wider
        return T.StructType([T.StructField(name, wider) for name, wider in fields.items()])
    return None
