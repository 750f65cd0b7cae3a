"""Joins any table of scores to the ratings, without dropping a rated caption.

A scores table of this project is keyed by uid and the caption's hash, and may hold several scorers.
Any other table with a uid and columns of numbers will do as well, with or without the caption.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from pyspark.sql import types as T

from udfs.scoring.results import OK

from ..core.errors import UsageError
from ..core.settings import nearest
from ..tables.delta import quoted
from ..tables.external_table import find_column, read_table
from ..tables.ratings import RATED, Range, Ratings, caption_hash, number

NOT_IN_SCORES = "not_in_scores"  # the scores table does not have the uid
OTHER_CAPTION = "other_caption"  # it has the uid, but with other captions
SEVERAL_CAPTIONS = "several_captions"  # it has several, and the ratings do not say which they rate
MAX_SCORERS = 20

_NAMED = re.compile(r"([^=/\\:]+)=(.+)")
_NOT_SIGNALS = ("uid", "copy", "attempts", "rating")


@dataclass(frozen=True)
class Scores:
    """A table of scores.

    Attributes:
        name: its name in results.
        ref: its path or name.
        rows: `uid`, `caption_sha` (null if captions are unknown), `scorer` (empty if there is no
            such column), `status`, `_newest`, `_copy`, and the columns of numbers as doubles.
        columns: the columns of numbers.
        scorers: its scorers, in alphabetical order.
        has_captions: whether the table identifies captions.
    """

    name: str
    ref: str
    rows: DataFrame
    columns: tuple[str, ...]
    scorers: tuple[str, ...]
    has_captions: bool

    def label(self, scorer: str) -> str:
        """The name of one of its scorers in results."""
        if len(self.scorers) == 1:
            return self.name
        short = scorer[:8] if len({s[:8] for s in self.scorers}) == len(self.scorers) else scorer
        return f"{self.name} {short}"


@dataclass(frozen=True)
class RatedScores:
    """One scorer's scores of the rated captions; all arrays have the shape (captions,).

    Attributes:
        label: the scorer's name in results.
        scores: path or name of the scores table.
        scorer: its name in that table.
        images: a number for each image.
        kinds: how the caption was made; None if unknown.
        statuses: the scores table's status, or why there is no score.
        ratings: metric -> ratings 0..100, NaN if there is none.
        values: column of the scores table -> scores, NaN if there is none.
        repeated: how many captions have several rows; the newest one with scores counts.
    """

    label: str
    scores: str
    scorer: str
    images: npt.NDArray[np.int64]
    kinds: npt.NDArray[np.object_]
    statuses: npt.NDArray[np.object_]
    ratings: dict[str, npt.NDArray[np.float64]]
    values: dict[str, npt.NDArray[np.float64]]
    repeated: int


def name_and_ref(text: str) -> tuple[str, str]:
    """Split the value of `--scores`: `name=table`, or a table whose last part is the name."""
    parsed = _NAMED.fullmatch(text)
    if parsed:
        return parsed[1].strip(), parsed[2].strip()
    last = re.split(r"[/\\]", text.rstrip("/\\"))[-1]
    return re.sub(r"\.(csv|tsv|jsonl|ndjson|json|parquet)$", "", last, flags=re.IGNORECASE), text


def read_scores(
    spark: SparkSession, text: str, uid: str, caption: str | None, wanted: Sequence[str]
) -> Scores:
    """Read a table of scores.

    Args:
        spark: the session.
        text: the value of `--scores`, see `name_and_ref`.
        uid: the column of keys; `uid` if the table does not have it.
        caption: the column of captions; `caption` if the table does not have it. A column
            `caption_sha` wins over both.
        wanted: the scorers to read; empty: all.

    Raises:
        UsageError: there is no such table, column or scorer, or too many scorers.
    """
    name, ref = name_and_ref(text)
    frame = read_table(spark, ref, "--scores")
    uid = uid if uid in frame.columns else find_column(frame, "uid", "--scores", ref)
    sha: Column | None = None
    if "caption_sha" in frame.columns:
        sha = F.col("caption_sha")
    else:
        caption_columns = [c for c in (caption, "caption") if c and c in frame.columns]
        sha = caption_hash(F.col(quoted(caption_columns[0]))) if caption_columns else None
    columns = _numbers(frame, ref, (uid,))
    by_name = {field.name: F.col(quoted(field.name)) for field in frame.schema}
    null = F.lit(None)
    rows = frame.select(
        F.col(quoted(uid)).cast("string").alias("uid"),
        (null if sha is None else sha).cast("string").alias("caption_sha"),
        F.coalesce(by_name.get("scorer", null).cast("string"), F.lit("")).alias("scorer"),
        F.coalesce(by_name.get("status", null).cast("string"), F.lit(OK)).alias("status"),
        by_name.get("scored_at", null).cast("string").alias("_newest"),
        by_name.get("copy", null).cast("string").alias("_copy"),
        *(number(frame, column).alias(column) for column in columns),
    )
    scorers = _scorers(rows, ref, wanted) if "scorer" in by_name else ("",)
    rows = rows.where(F.col("scorer").isin(*scorers))
    return Scores(name, ref, rows, tuple(columns), scorers, sha is not None)


def join(
    ratings: Ratings, scores: Scores, columns: Sequence[str], captions: int
) -> list[RatedScores]:
    """Each scorer's scores of all rated captions, collected. `captions` is their number.

    Raises RuntimeError if the join returns another number of captions.
    """
    joined = join_rows(ratings, scores, columns)
    collected = joined.select(
        "scorer",
        F.xxhash64("image").alias("image"),
        "kind",
        "status",
        "repeated",
        *(F.col(quoted(RATED + metric)).alias(f"rating {metric}") for metric in ratings.metrics),
        *(F.col(quoted(column)).alias(f"score {column}") for column in columns),
    ).toArrow()
    scorers = _objects(collected["scorer"])
    rated = []
    for scorer in scores.scorers:
        table = collected.filter(pa.array(scorers == scorer))
        if table.num_rows != captions:  # only if the ratings changed while they were read
            raise RuntimeError(f"{table.num_rows} of {captions} captions came back from the join")
        rated.append(
            RatedScores(
                scores.label(scorer),
                scores.ref,
                scorer,
                table["image"].to_numpy(),
                _objects(table["kind"]),
                _objects(table["status"]),
                {metric: _floats(table[f"rating {metric}"]) for metric in ratings.metrics},
                {column: _floats(table[f"score {column}"]) for column in columns},
                int(np.count_nonzero(table["repeated"].to_numpy())),
            )
        )
    return rated


def join_rows(ratings: Ratings, scores: Scores, columns: Sequence[str]) -> DataFrame:
    """Each rated caption once per scorer, with `columns`, `status` and `repeated` (boolean)."""
    captions = ratings.captions
    by_caption = ratings.has_captions and scores.has_captions
    key = ["scorer", "uid", *(["caption_sha"] if by_caption else [])]
    candidates = scores.rows.join(captions.select("uid").distinct(), "uid", "left_semi")
    values = [F.col(quoted(column)) for column in columns]
    has_scores = F.coalesce(*values).isNotNull()
    order = [has_scores.desc(), F.col("_newest").desc_nulls_last(), F.col("_copy"), *values]
    same_key = Window.partitionBy(*key)
    several_captions = F.min("caption_sha").over(same_key) != F.max("caption_sha").over(same_key)
    unclear = F.coalesce(several_captions, F.lit(False)) if not by_caption else F.lit(False)
    best = (
        candidates.withColumns(
            {
                "_number": F.row_number().over(same_key.orderBy(*order)),
                "repeated": F.count("*").over(same_key) > 1,
                "_unclear": unclear,
            }
        )
        .where("_number = 1")
        .select(
            *key,
            "repeated",
            F.when(F.col("_unclear"), SEVERAL_CAPTIONS).otherwise(F.col("status")).alias("status"),
            *(
                F.when(~F.col("_unclear"), value).alias(column)
                for value, column in zip(values, columns, strict=True)
            ),
        )
    )
    known = candidates.select("scorer", "uid").distinct().withColumn("_known", F.lit(True))
    session = captions.sparkSession
    scorers = session.createDataFrame([(s,) for s in scores.scorers], "scorer string")
    joined = captions.crossJoin(F.broadcast(scorers)).join(best, key, "left")
    joined = joined.join(known, ["scorer", "uid"], "left")
    missing = F.when(F.col("_known"), OTHER_CAPTION).otherwise(NOT_IN_SCORES)
    return joined.withColumns(
        {
            "status": F.coalesce("status", missing),
            "repeated": F.coalesce("repeated", F.lit(False)),
        }
    )


def _numbers(frame: DataFrame, ref: str, keys: Sequence[str]) -> list[str]:
    """The columns of numbers; in a CSV or TSV, every column may hold numbers."""
    is_text_file = ref.lower().rstrip("/").endswith((".csv", ".tsv"))
    types = (T.NumericType, T.StringType) if is_text_file else (T.NumericType,)
    return [
        field.name
        for field in frame.schema
        if isinstance(field.dataType, types) and field.name not in (*keys, *_NOT_SIGNALS)
    ]


def _scorers(rows: DataFrame, ref: str, wanted: Sequence[str]) -> tuple[str, ...]:
    found = [row[0] for row in rows.select("scorer").distinct().limit(1000).collect()]
    available = sorted(found) or [""]
    chosen = [scorer for scorer in available if scorer in wanted] if wanted else available
    if not chosen:
        guess = nearest(wanted[0], available)
        hint = f"did you mean {guess}?" if guess else f"it has {', '.join(available)}"
        raise UsageError(f"--scorer: {ref} has no scores of {', '.join(wanted)}; {hint}")
    if len(chosen) > MAX_SCORERS:
        raise UsageError(
            f"{ref} has {len(chosen)} scorers; choose at most {MAX_SCORERS} with --scorer, "
            f"such as {chosen[0]}"
        )
    return tuple(chosen)


def _objects(column: pa.ChunkedArray) -> npt.NDArray[np.object_]:
    """A column of strings as an array; equal strings are one object."""
    encoded = column.combine_chunks().dictionary_encode()
    names = np.array([*encoded.dictionary.to_pylist(), None], dtype=object)
    chosen: npt.NDArray[np.object_] = names[encoded.indices.fill_null(len(names) - 1).to_numpy()]
    return chosen


def _floats(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    values: npt.NDArray[np.float64] = column.to_numpy().astype(np.float64)
    return values


def scale_hint(ratings: Iterable[npt.NDArray[np.float64]], scale: Range) -> str | None:
    """What to say of ratings (N,), NaN where there is none, that use a small part of the scale."""
    values = np.concatenate([np.empty(0), *ratings])
    values = values[np.isfinite(values)]
    if scale != Range() or not len(values) or values.max() > 5:
        return None
    low, high = (0, 1) if values.max() <= 1 else (int(values.min() >= 1), 5)
    return (
        f"all ratings lie in {low}..{high}, taken as numbers of 0..100; if that is their scale: "
        f"--rating-low {low} --rating-high {high}"
    )
