"""Captions that come as lists, one caption a row; and a refusal of what is no caption."""

from __future__ import annotations

from typing import Literal

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from ...core.errors import UsageError

_TEXTS = (T.StringType, T.BinaryType)
_NUMBERS = (T.NumericType, T.BooleanType, T.NullType)


def check_caption(data_type: T.DataType, name: str, where: str) -> None:
    """Raise UsageError unless captions of this type are texts, lists of texts, or plain numbers."""
    element = data_type.elementType if isinstance(data_type, T.ArrayType) else data_type
    if isinstance(element, _TEXTS) or (element is data_type and isinstance(element, _NUMBERS)):
        return
    raise UsageError(
        f"column {name} of {where} is {data_type.simpleString()}, which is no caption; "
        "--caption-column needs text, or lists of texts"
    )


def one_caption_per_row(frame: DataFrame, which: Literal["all", "first"]) -> DataFrame:
    """`frame` with a text in each `caption`: of a list, all captions in rows of their own or the
    first. An empty list is a row without a caption.

    With "all", the captions of a list of several get the uids `ID#0`, `ID#1` ... where `uid` is
    given, since two captions under one uid would be duplicates; `source_uid` keeps the uid.
    """
    if not isinstance(frame.schema["caption"].dataType, T.ArrayType):
        return frame
    captions = F.col("caption")
    if which == "first":
        return frame.withColumn("caption", F.get(captions, 0))
    others = [name for name in frame.columns if name != "caption"]
    count = F.size(captions).alias("_captions")
    rows = frame.select(
        *(F.col(f"`{name.replace('`', '``')}`") for name in others),
        count,
        F.posexplode_outer(captions).alias("_number", "caption"),
    )
    if "uid" in others:
        numbered = F.concat("uid", F.lit("#"), F.col("_number").cast("string"))
        several = F.col("_captions") > 1
        source_uid = F.col("source_uid") if "source_uid" in others else F.lit(None)
        rows = rows.withColumns(
            {
                "source_uid": F.when(several, F.col("uid")).otherwise(source_uid).cast("string"),
                "uid": F.when(several, numbered).otherwise(F.col("uid")),
            }
        )
    return rows.drop("_captions", "_number")
