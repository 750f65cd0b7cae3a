"""The pairs table: its columns, and the keys of a pair, from whatever columns a user has."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from ..core.errors import UsageError
from ..core.settings import nearest
from .delta import described, quoted

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
    Raises UsageError for a missing column.
    """
    image = image_path_column or image_column
    for option, name in (("uid", uid_column), ("image", image), ("caption", caption_column)):
        if name not in pairs.columns:
            guess = nearest(name, pairs.columns)
            hint = f"did you mean {guess}?" if guess else f"it has {', '.join(pairs.columns)}"
            raise UsageError(f"--{option}-column: the pairs table has no column {name}; {hint}")
    named = {
        "uid": F.col(quoted(uid_column)).cast("string"),
        "image_path" if image_path_column else "image": F.col(quoted(image)),
        "caption": F.col(quoted(caption_column)),
    }
    keyed = pairs.withColumns(named)
    content = F.col("image_path" if image_path_column else "image").cast("binary")
    if "image_sha" not in pairs.columns:
        keyed = keyed.withColumn("image_sha", F.sha2(F.coalesce(content, F.lit(b"")), 256))
    text = F.coalesce(F.col("caption").cast("binary"), F.lit(b""))
    return keyed.withColumn("caption_sha", F.sha2(text, 256))
