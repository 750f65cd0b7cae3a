"""The pairs table: its columns, and the keys of a pair, from whatever columns a user has."""

from __future__ import annotations

from typing import Protocol

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from ..core.errors import UsageError
from .delta import described, quoted
from .external_table import find_column

PAIRS = T.StructType(
    [
        described("uid", T.StringType(), "key of the pair"),
        described("image", T.BinaryType(), "the bytes of the image file, unchanged"),
        described("caption", T.StringType(), "the caption"),
        described("source_path", T.StringType(), "where the image came from"),
        described("image_sha", T.StringType(), "SHA-256 of image in hex; null counts as empty"),
        described("caption_sha", T.StringType(), "SHA-256 of caption in hex; null counts as empty"),
    ]
)
"""The columns of every pairs table; any other columns of the source follow them."""

PAIRS_KEYS = ("uid", "image_sha", "caption_sha")
"""The key columns. They are narrow, and the only ones with statistics for data skipping."""


_NESTED = (T.StructType, T.ArrayType, T.MapType, T.VariantType)
_TEXT = (T.StringType, T.CharType, T.VarcharType, T.BinaryType)
_EXACT = 2.0**53  # up to here a double holds every whole number


def with_keys(
    pairs: DataFrame,
    uid_column: str = "uid",
    image_column: str = "image",
    image_path_column: str | None = None,
    caption_column: str = "caption",
) -> DataFrame:
    """Rename the key columns to `uid`, `image` or `image_path`, `caption`; add the hashes.

    `image_sha` is the hash of the bytes: the table's own column of that name if it has one (a rerun
    then reads no image), else computed. With paths it is the hash of the path, assuming that its
    image never changes. `caption_sha` is always computed, so that an edited caption is noticed.
    Raises UsageError for a missing column, or one whose type does not fit.
    """
    table = "the pairs table"
    image_option = "--image-path-column" if image_path_column else "--image-column"
    wanted = image_path_column or image_column
    image = find_column(pairs, wanted, image_option, table)
    caption = find_column(pairs, caption_column, "--caption-column", table)
    uid = find_column(pairs, uid_column, "--uid-column", table)
    _check_type(pairs, image, (T.BinaryType,) if not image_path_column else _TEXT, image_option)
    _check_type(pairs, caption, _TEXT, "--caption-column")
    named = {
        "uid": uid_text(pairs, uid, "--uid-column", table),
        "image_path" if image_path_column else "image": F.col(quoted(image)),
        "caption": F.col(quoted(caption)),
    }
    keyed = pairs.withColumns(named)
    content = F.col("image_path" if image_path_column else "image").cast("binary")
    if "image_sha" in pairs.columns:  # null in a row would be a key that nothing equals
        image_sha = F.coalesce(F.col("image_sha"), F.lit(""))
    else:
        image_sha = F.sha2(F.coalesce(content, F.lit(b"")), 256)
    keyed = keyed.withColumn("image_sha", image_sha)
    text = F.coalesce(F.col("caption").cast("binary"), F.lit(b""))
    return keyed.withColumn("caption_sha", F.sha2(text, 256))


class KeyColumns(Protocol):
    """Settings that name the columns of a pairs table, as the jobs that read one have them."""

    @property
    def uid_column(self) -> str:
        """Holds the keys."""

    @property
    def image_column(self) -> str:
        """Holds the images' bytes."""

    @property
    def image_path_column(self) -> str | None:
        """Holds paths of images instead."""

    @property
    def caption_column(self) -> str:
        """Holds the captions."""


def keyed_by(pairs: DataFrame, config: KeyColumns) -> DataFrame:
    """`with_keys` with the columns that a job's settings name."""
    return with_keys(
        pairs,
        config.uid_column,
        config.image_column,
        config.image_path_column,
        config.caption_column,
    )


def uid_text(frame: DataFrame, name: str, option: str, table: str) -> Column:
    """The uids in a column as text, unchanged: numbers in decimal digits, bytes in hex.

    Doubles that are whole numbers are written as such: pandas makes doubles of integers where some
    are missing. Raises UsageError for nested types, with `option` and `table` in the message.
    """
    uid, data_type = F.col(quoted(name)), frame.schema[name].dataType
    if isinstance(data_type, _NESTED):
        raise UsageError(
            f"{option}: {name} of {table} is {data_type.simpleString()}; uids are texts or numbers"
        )
    if isinstance(data_type, T.BinaryType):
        return F.lower(F.hex(uid))
    if isinstance(data_type, T.FloatType | T.DoubleType):
        whole = (F.floor(uid) == uid) & (F.abs(uid) <= _EXACT)
        return F.when(whole, uid.cast("long").cast("string")).otherwise(uid.cast("string"))
    return uid.cast("string")


def _check_type(
    pairs: DataFrame, name: str, types: tuple[type[T.DataType], ...], option: str
) -> None:
    data_type = pairs.schema[name].dataType
    if not isinstance(data_type, types):
        needs = "binary" if types == (T.BinaryType,) else "string or binary"
        raise UsageError(
            f"{option}: {name} of the pairs table is {data_type.simpleString()}; it needs {needs}"
        )
