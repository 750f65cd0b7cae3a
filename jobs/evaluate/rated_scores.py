"""Scores of rated captions: any table of scores joined to the ratings, with nothing dropped.

A scores table of this project is keyed by uid and the caption's hash and may hold several scorers;
any other table with a uid and columns of numbers serves too, with the caption or without it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
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
from ..tables.ratings import RATED, Ratings, caption_hash, find_column, number, read_table

NOT_IN_SCORES = "not_in_scores"  # the scores have no such uid
OTHER_CAPTION = "other_caption"  # they have the uid, with other captions only
SEVERAL_CAPTIONS = "several_captions"  # the ratings do not say of which caption they are
MOST_SCORERS = 20

_NAMED = re.compile(r"([^=/\\:]+)=(.+)")
_NOT_SIGNALS = ("uid", "copy", "attempts", "rating")


@dataclass(frozen=True)
class Scores:
    """A table of scores.

    Attributes:
        name: what it is called in results.
        ref: where it is.
        rows: `uid`, `caption_sha` (null where captions are not known), `scorer` (empty where there
            is none), `status`, `_newest`, `_copy`, and the columns of numbers as doubles.
        columns: the columns of numbers.
        scorers: in alphabetical order.
        has_captions: whether the table tells captions apart.
    """

    name: str
    ref: str
    rows: DataFrame
    columns: tuple[str, ...]
    scorers: tuple[str, ...]
    has_captions: bool

    def label(self, scorer: str) -> str:
        """What a scorer of this table is called in results."""
        if len(self.scorers) == 1:
            return self.name
        short = scorer[:8] if len({s[:8] for s in self.scorers}) == len(self.scorers) else scorer
        return f"{self.name} {short}"


@dataclass(frozen=True)
class Rated:
    """The rated captions with one scorer's answers, all arrays (n,).

    Attributes:
        label: the scorer's name in results.
        scores: where the scores are from.
        scorer: its name there.
        images: a number for each image.
        kinds: how the caption was made; None where that is not known.
        statuses: the scores table's status, or why there is no score.
        ratings: metric -> ratings, NaN where there is none.
        values: column of the scores table -> scores, NaN where there is none.
        repeated: captions with several rows of scores, of which the newest with scores counts.
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
    """What `--scores` says: `name=path`, or a path whose last part is the name."""
    found = _NAMED.fullmatch(text)
    if found:
        return found[1].strip(), found[2].strip()
    last = re.split(r"[/\\]", text.rstrip("/\\"))[-1]
    return re.sub(r"\.(csv|tsv|jsonl|ndjson|json|parquet)$", "", last, flags=re.IGNORECASE), text


def read_scores(
    spark: SparkSession, text: str, uid: str, caption: str | None, wanted: Sequence[str]
) -> Scores:
    """Read a table of scores.

    Args:
        spark: the session.
        text: what `name_and_ref` takes.
        uid: the column of its keys; else `uid`.
        caption: the column of its captions; else `caption`; `caption_sha` comes before both.
        wanted: the scorers to take; empty: all.

    Raises:
        UsageError: no such table, column or scorer, or too many scorers.
    """
    name, ref = name_and_ref(text)
    frame = read_table(spark, ref, "--scores")
    uid = uid if uid in frame.columns else find_column(frame, "uid", "--scores", ref)
    sha: Column | None = None
    if "caption_sha" in frame.columns:
        sha = F.col("caption_sha")
    else:
        there = [c for c in (caption, "caption") if c and c in frame.columns]
        sha = caption_hash(F.col(quoted(there[0]))) if there else None
    columns = _numbers(frame, ref, (uid,))
    given = {field.name: F.col(quoted(field.name)) for field in frame.schema}
    nothing = F.lit(None)
    rows = frame.select(
        F.col(quoted(uid)).cast("string").alias("uid"),
        (nothing if sha is None else sha).cast("string").alias("caption_sha"),
        F.coalesce(given.get("scorer", nothing).cast("string"), F.lit("")).alias("scorer"),
        F.coalesce(given.get("status", nothing).cast("string"), F.lit(OK)).alias("status"),
        given.get("scored_at", nothing).cast("string").alias("_newest"),
        given.get("copy", nothing).cast("string").alias("_copy"),
        *(number(frame, column).alias(column) for column in columns),
    )
    scorers = _scorers(rows, ref, wanted) if "scorer" in given else ("",)
    rows = rows.where(F.col("scorer").isin(*scorers))
    return Scores(name, ref, rows, tuple(columns), scorers, sha is not None)


def join(ratings: Ratings, scores: Scores, columns: Sequence[str], rows: int) -> list[Rated]:
    """Each scorer's answers to all rated captions, collected.

    `rows` says how many captions there are.
    """
    joined = matched(ratings, scores, columns)
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
    found = []
    for scorer in scores.scorers:
        table = collected.filter(pa.array(scorers == scorer))
        if table.num_rows != rows:  # it cannot be, unless the ratings changed while being read
            raise RuntimeError(f"{table.num_rows} of {rows} captions came back from the join")
        found.append(
            Rated(
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
    return found


def matched(ratings: Ratings, scores: Scores, columns: Sequence[str]) -> DataFrame:
    """Each rated caption once for each scorer: with `columns`, `status`, and whether `repeated`."""
    captions = ratings.captions
    by_caption = ratings.has_captions and scores.has_captions
    key = ["scorer", "uid", *(["caption_sha"] if by_caption else [])]
    near = scores.rows.join(captions.select("uid").distinct(), "uid", "left_semi")
    values = [F.col(quoted(column)) for column in columns]
    scored = F.coalesce(*values).isNotNull()
    order = [scored.desc(), F.col("_newest").desc_nulls_last(), F.col("_copy"), *values]
    same = Window.partitionBy(*key)
    texts = F.min("caption_sha").over(same) != F.max("caption_sha").over(same)
    unclear = F.coalesce(texts, F.lit(False)) if not by_caption else F.lit(False)
    best = (
        near.withColumns(
            {
                "_number": F.row_number().over(same.orderBy(*order)),
                "repeated": F.count("*").over(same) > 1,
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
    known = near.select("scorer", "uid").distinct().withColumn("_known", F.lit(True))
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
    """The columns that hold numbers; in a CSV any may."""
    text = ref.lower().rstrip("/").endswith((".csv", ".tsv"))
    kinds = (T.NumericType, T.StringType) if text else (T.NumericType,)
    return [
        field.name
        for field in frame.schema
        if isinstance(field.dataType, kinds) and field.name not in (*keys, *_NOT_SIGNALS)
    ]


def _scorers(rows: DataFrame, ref: str, wanted: Sequence[str]) -> tuple[str, ...]:
    found = [row[0] for row in rows.select("scorer").distinct().limit(1000).collect()]
    there = sorted(found) or [""]
    chosen = [scorer for scorer in there if scorer in wanted] if wanted else there
    if not chosen:
        guess = nearest(wanted[0], there)
        hint = f"did you mean {guess}?" if guess else f"it has {', '.join(there)}"
        raise UsageError(f"--scorer: {ref} has no scores of {', '.join(wanted)}; {hint}")
    if len(chosen) > MOST_SCORERS:
        raise UsageError(
            f"{ref} has {len(chosen)} scorers; choose at most {MOST_SCORERS} by --scorer, "
            f"such as {chosen[0]}"
        )
    return tuple(chosen)


def _objects(column: pa.ChunkedArray) -> npt.NDArray[np.object_]:
    """Strings, each distinct one held once."""
    encoded = column.combine_chunks().dictionary_encode()
    names = np.array([*encoded.dictionary.to_pylist(), None], dtype=object)
    chosen: npt.NDArray[np.object_] = names[encoded.indices.fill_null(len(names) - 1).to_numpy()]
    return chosen


def _floats(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    values: npt.NDArray[np.float64] = column.to_numpy().astype(np.float64)
    return values
