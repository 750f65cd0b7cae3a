"""Delta tables, by path or by catalog name: reading, creating, idempotent appends; shared schemas.

A reference is a catalog name if it looks like `schema.table` or `catalog.schema.table`. Otherwise
it is a path: anything with a slash, a scheme (`s3://`, `dbfs:/`) or a leading dot, or a bare word,
which is a folder in the working directory. Uses SQL and DataFrames only, so Spark Connect works.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, DataFrameWriter, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from ..core.errors import RUN_AGAIN, ConflictError, UsageError

Result = TypeVar("Result")

_PART = r"(?:[A-Za-z_]\w*|`[^`]+`)"
_NAME = re.compile(rf"{_PART}\.{_PART}(?:\.{_PART})?")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
_ABSENT = ("PATH_NOT_FOUND", "DELTA_TABLE_NOT_FOUND", "DELTA_PATH_DOES_NOT_EXIST")
_EXISTS = ("DELTA_PATH_EXISTS", "DELTA_TABLE_ALREADY_EXISTS", "TABLE_OR_VIEW_ALREADY_EXISTS")
_NO_SUCH_NAME = (
    "TABLE_OR_VIEW_NOT_FOUND",
    "SCHEMA_NOT_FOUND",
    "CATALOG_NOT_FOUND",
    "REQUIRES_SINGLE_PART_NAMESPACE",
)
CHANGE_ATTEMPTS = 10
"""How often a change is tried that others overtake; up to as many seconds lie between two."""

NOTE_OF_CREATION = '{"mlm_filter": {}}'
"""The commit that creates a table: one of ours, without rows."""

# Of Delta's errors: another transaction has changed meanwhile what this one read or writes.
_CONFLICT = re.compile(r"\[DELTA_(CONCURRENT_\w+|METADATA_CHANGED|PROTOCOL_CHANGED)\b")
# No reader feature that delta-rs and pyarrow do not support by default.
_PROPERTIES = {"delta.enableDeletionVectors": "false"}


def described(name: str, data_type: T.DataType, comment: str) -> T.StructField:
    """A nullable column with a comment."""
    return T.StructField(name, data_type, True, {"comment": comment})


def is_name(ref: str) -> bool:
    """Whether `ref` is a catalog name: `schema.table` or `catalog.schema.table`, else a path."""
    return _NAME.fullmatch(ref) is not None


def is_uri(path: str) -> bool:
    """Whether `path` begins with a scheme, such as `s3://` or `dbfs:/`."""
    return _SCHEME.match(path) is not None


def path_of(ref: str) -> str:
    """The path that `ref` means: `~` and relative paths become absolute, URIs stay as they are."""
    return ref if is_uri(ref) else os.path.abspath(os.path.expanduser(ref))


def sql_name(ref: str) -> str:
    """`ref` as written in SQL: the name itself or delta.`/path`."""
    return ref if is_name(ref) else "delta.`{}`".format(path_of(ref).replace("`", "``"))


def same(first: str, second: str) -> bool:
    """Whether two references name the same table, ignoring case."""
    return sql_name(first).lower() == sql_name(second).lower()


def read(spark: SparkSession, ref: str, version: int | None = None) -> DataFrame:
    """A table, as it is now or as it was at `version`. Raises UsageError if there is none."""
    reader = spark.read.format("delta")
    if version is not None:
        reader = reader.option("versionAsOf", version)
    try:
        frame = reader.table(ref) if is_name(ref) else reader.load(path_of(ref))
        frame.schema  # noqa: B018 - Spark Connect looks up a table only when it is used
    except AnalysisException as error:
        raise _missing_table_error(ref, error) from None
    return frame


def exists(spark: SparkSession, ref: str) -> bool:
    """Whether there is a Delta table (or, by name, any table) at `ref`."""
    try:
        read(spark, ref)
    except UsageError:
        return False
    return True


def version(spark: SparkSession, ref: str) -> int:
    """The latest version of a Delta table. Raises UsageError if there is none."""
    try:
        row = spark.sql(f"DESCRIBE HISTORY {sql_name(ref)} LIMIT 1").select("version").first()
    except AnalysisException as error:
        raise _missing_table_error(ref, error) from None
    return int(row[0]) if row else 0


def table_id(spark: SparkSession, ref: str) -> str:
    """The id that Delta gave a table when it was created: later a path may hold another table."""
    row = spark.sql(f"DESCRIBE DETAIL {sql_name(ref)}").select("id").first()
    return str(row[0]) if row else ref


def is_conflict(error: BaseException) -> bool:
    """Whether this is Delta's error for a transaction that another one has overtaken."""
    return _CONFLICT.search(str(error)) is not None


def repeat_on_conflict(ref: str, change: Callable[[], Result]) -> Result:
    """What `change` returns, which may be repeated: it is called again if another transaction on
    the table `ref` overtakes it. Raises ConflictError if that happens time and again."""
    for attempt in range(CHANGE_ATTEMPTS):
        try:
            return change()
        except Exception as error:
            if not (isinstance(error, ConflictError) or is_conflict(error)):
                raise
        time.sleep(random.uniform(0, attempt))
    raise ConflictError(f"other runs change {ref} all the time: {RUN_AGAIN}")


def create(
    spark: SparkSession, ref: str, schema: T.StructType, skipping: Sequence[str] = ()
) -> None:
    """Create an empty Delta table with the column comments of `schema`, unless there is one.

    `skipping` names the columns to keep minima and maxima of, for data skipping (default: Delta's
    choice). Name narrow columns: statistics of long or badly encoded text are of no use, and can be
    wrong.
    """
    frame = spark.createDataFrame([], schema)
    try:
        writer = _writer(frame, skipping).option("userMetadata", NOTE_OF_CREATION)
        _save(writer.mode("ignore"), ref)
    except ConflictError:
        if not exists(spark, ref):  # else another run has just made it
            raise


def append(
    df: DataFrame,
    ref: str,
    app_id: str,
    app_version: int,
    new_columns: bool = False,
    note: str | None = None,
) -> None:
    """Add rows to an existing table, once: repeating it with the same id and version adds nothing.

    Columns that the table lacks are an error; with `new_columns` they are added to the table.
    `note` becomes the commit's `userMetadata`.

    Within one `app_id`, `app_version` has to grow: with one that is not above the last, nothing is
    written, and no error says so. Raises ConflictError if another writer with this id committed
    at the same time.
    """
    writer = df.write.format("delta").mode("append").option("mergeSchema", new_columns)
    if note is not None:
        writer = writer.option("userMetadata", note)
    _save(writer.option("txnAppId", app_id).option("txnVersion", app_version), ref)


def overwrite(df: DataFrame, ref: str, skipping: Sequence[str] = (), new: bool = False) -> None:
    """Replace a table by `df`, with its schema and column comments, or make a new one.

    Raises ConflictError if another run writes to the table at the same time; with `new`, also if
    another one has made it meanwhile.
    """
    mode = "error" if new else "overwrite"
    _save(_writer(df, skipping).mode(mode).option("overwriteSchema", "true"), ref)


def commented(df: DataFrame, schema: T.StructType) -> DataFrame:
    """`df` with the comments of `schema` for columns of the same names."""
    for field in schema:
        if field.name in df.columns:
            df = df.withMetadata(field.name, dict(field.metadata))
    return df


def storable(df: DataFrame) -> DataFrame:
    """`df` with names and types that Delta stores without any special reader feature.

    Characters that Delta refuses in names (` ,;{}()`, tab, newline, `=`) become `_`. Timestamps
    without a zone become timestamps; void columns and exotic types become strings.
    """
    fields: list[Column] = []
    taken: set[str] = set()
    for field in df.schema:
        name = free_name(_storable_name(field.name), taken)
        taken.add(name.lower())
        column, data_type = F.col(quoted(field.name)), _storable_type(field.dataType)
        if isinstance(field.dataType, T.VariantType):
            column = F.to_json(column)
        elif data_type != field.dataType:
            column = column.cast(data_type)
        fields.append(column.alias(name, metadata=dict(field.metadata)))
    return df.select(*fields)


def free_name(name: str, taken: set[str]) -> str:
    """`name`, or `name_2`, `name_3` ... if that is `taken` (a set of names in lower case)."""
    free, number = name, 1
    while free.lower() in taken:
        number += 1
        free = f"{name}_{number}"
    return free


def quoted(column: str) -> str:
    """The name of a top-level column as `F.col` needs it, whatever characters it has."""
    return "`{}`".format(column.replace("`", "``"))


def sql_text(text: str) -> str:
    """A string as SQL writes it, in single quotes."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _storable_name(name: str) -> str:
    return re.sub(r"[ ,;{}()\n\t=]", "_", name)


def _storable_type(data_type: T.DataType) -> T.DataType:
    if isinstance(data_type, T.StructType):
        return T.StructType(
            [
                T.StructField(_storable_name(field.name), _storable_type(field.dataType))
                for field in data_type
            ]
        )
    if isinstance(data_type, T.ArrayType):
        return T.ArrayType(_storable_type(data_type.elementType), data_type.containsNull)
    if isinstance(data_type, T.MapType):
        key, value = _storable_type(data_type.keyType), _storable_type(data_type.valueType)
        return T.MapType(key, value, data_type.valueContainsNull)
    if isinstance(data_type, T.TimestampNTZType):
        return T.TimestampType()
    plain = (T.NumericType, T.StringType, T.BinaryType, T.BooleanType, T.DateType, T.TimestampType)
    return data_type if isinstance(data_type, plain) else T.StringType()


def _writer(df: DataFrame, skipping: Sequence[str]) -> DataFrameWriter:
    writer = df.write.format("delta").options(**_PROPERTIES)
    return (
        writer.option("delta.dataSkippingStatsColumns", ",".join(skipping)) if skipping else writer
    )


def _save(writer: DataFrameWriter, ref: str) -> None:
    try:
        if is_name(ref):
            writer.saveAsTable(ref)
        else:
            writer.save(path_of(ref))
    except AnalysisException as error:
        if (error.getCondition() or "").startswith(_NO_SUCH_NAME):
            raise _missing_table_error(ref, error) from None
        if (error.getCondition() or "").startswith(_EXISTS):
            raise ConflictError(f"another run has made {ref} meanwhile: {RUN_AGAIN}") from None
        raise
    except Exception as error:  # with py4j, Delta's own errors have no class in Python
        if is_conflict(error):
            raise ConflictError(
                f"another run wrote to {ref} at the same time: {RUN_AGAIN}"
            ) from error
        raise


def _missing_table_error(ref: str, error: AnalysisException) -> Exception:
    """A UsageError if `error` means that there is no such table, else `error` itself."""
    condition = error.getCondition() or ""
    if is_name(ref):
        if not condition.startswith((*_NO_SUCH_NAME, *_ABSENT, "DELTA_TABLE_ONLY_OPERATION")):
            return error
        if condition.startswith("SCHEMA"):
            problem = f"{ref.rpartition('.')[0]}: no such schema"
        else:
            problem = f"{ref}: no such table in the catalog"
        return UsageError(f"{problem} (for a folder of that name write ./{ref})")
    if condition.startswith("DELTA_TABLE_ONLY_OPERATION") or condition.startswith(_ABSENT):
        return UsageError(f"{ref}: there is no Delta table")
    return error
