"""The project's tables as SQL views: one view per table, and views that join pairs with results.

    create_views(spark, pairs="my/pairs", scores="my/scores", selection="my/selection")
    spark.sql("SELECT status, count(*) FROM scores GROUP BY status")
    spark.sql("SELECT caption, itm FROM scored_pairs ORDER BY itm DESC LIMIT 10")

Without a schema the views last as long as the session; with one they are stored in the catalog.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T

from ..core.errors import UsageError
from ..core.settings import JobConfig, nearest
from . import delta
from .delta import quoted, sql_text

TABLES = {
    "pairs": "images and captions",
    "scores": "the scores of each pair by each scorer",
    "selection": "which pairs are kept, and which rule the others failed first",
    "signals": "cheap facts about each pair: size, language, duplicates",
    "runs": "one row per run of the score job",
    "evaluation": "how well scores agree with ratings",
}
"""Name of a table, and of its view -> what it holds."""

JOINED = {
    "scored_pairs": "scores",
    "selected_pairs": "selection",
}
"""Views that join the pairs with another table: name of the view -> that table."""

_ABOUT_JOINED = {
    "scored_pairs": "each pair once for each scorer that has scored it, or once without scores",
    "selected_pairs": "each pair with its row in the selection",
}
_KEYS = ("uid", "image_sha", "caption_sha")


class TablesConfig(JobConfig):
    """Settings of a job that uses the views: which tables to make views of."""

    pairs: str | None = Field(None, description="pairs table")
    scores: str | None = Field(None, description="scores table")
    selection: str | None = Field(None, description="selection table")
    signals: str | None = Field(None, description="signals table")
    runs: str | None = Field(None, description="runs table (default: that of --scores)")
    evaluation: str | None = Field(None, description="evaluation table")

    def refs(self) -> dict[str, str]:
        """`TABLES` name -> reference, for the tables that are given."""
        refs = {name: getattr(self, name) for name in TABLES}
        return {name: ref for name, ref in refs.items() if ref}


@dataclass(frozen=True)
class View:
    """A view: the query behind it, and its columns with their comments."""

    name: str
    query: str
    columns: T.StructType
    about: str


def views_of(spark: SparkSession, refs: Mapping[str, str]) -> list[View]:
    """The views of these tables (`TABLES` name -> reference), and those that join two of them.

    Raises:
        UsageError: a table does not exist, or lacks the columns to join on.
    """
    unknown = [name for name in refs if name not in TABLES]
    if unknown:
        guess = nearest(unknown[0], tuple(TABLES)) or ", ".join(TABLES)
        raise UsageError(f"there is no view of {unknown[0]}; did you mean {guess}?")
    frames = {name: delta.read(spark, ref) for name, ref in refs.items()}
    views = [
        View(name, f"SELECT * FROM {delta.sql_name(refs[name])}", frame.schema, TABLES[name])
        for name, frame in frames.items()
    ]
    for name, other in JOINED.items():
        if "pairs" in frames and other in frames:
            query = _joined(refs["pairs"], frames["pairs"], refs[other], frames[other])
            schema = spark.sql(query).schema
            views.append(View(name, query, schema, _ABOUT_JOINED[name]))
    return views


def create_views(spark: SparkSession, schema: str | None = None, **refs: str | None) -> list[str]:
    """Make the views of these tables (`pairs=...`, `scores=...`); returns their names.

    With `schema` (`schema` or `catalog.schema`) they are stored in the catalog, with the current
    comments of the columns. A view that would have the name of its own table is left out.
    """
    given = {name: ref for name, ref in refs.items() if ref}
    made = []
    for view in views_of(spark, given):
        if schema is None:
            spark.sql(view.query).createOrReplaceTempView(view.name)
            made.append(view.name)
            continue
        name = f"{schema}.{view.name}"
        if delta.same(name, given.get(view.name, "")):
            continue
        spark.sql(_create(name, view)).collect()
        made.append(name)
    return made


def _create(name: str, view: View) -> str:
    columns = ", ".join(_column(field) for field in view.columns)
    about = sql_text(view.about)
    return f"CREATE OR REPLACE VIEW {name} ({columns}) COMMENT {about} AS {view.query}"


def _column(field: T.StructField) -> str:
    comment = field.metadata.get("comment")
    return quoted(field.name) + (f" COMMENT {sql_text(comment)}" if comment else "")


def _joined(pairs_ref: str, pairs: DataFrame, ref: str, other: DataFrame) -> str:
    """The query that joins each row of the pairs table with the other table's row of its content.

    Identical rows of the pairs table all get the row with `copy` 0; rows with `copy` 1, 2 ... only
    say that they are copies.
    """
    _require(pairs_ref, pairs.columns, ("uid", "caption"))
    _require(ref, other.columns, _KEYS)
    if "image_sha" not in pairs.columns:
        _require(pairs_ref, pairs.columns, ("image",))
    image = "p.image_sha" if "image_sha" in pairs.columns else _hash("image")
    other_names = [name for name in other.columns if name not in _KEYS and name != "copy"]
    taken = {name.lower() for name in other_names}
    own = [name for name in pairs.columns if name.lower() not in taken]
    columns = [f"p.{quoted(name)}" for name in own] + [f"o.{quoted(name)}" for name in other_names]
    on = ["p.uid <=> o.uid", f"{image} = o.image_sha", f"{_hash('caption')} = o.caption_sha"]
    if "copy" in other.columns:
        on.append("o.copy = 0")
    return (
        f"SELECT {', '.join(columns)} FROM {delta.sql_name(pairs_ref)} AS p"
        f" LEFT JOIN {delta.sql_name(ref)} AS o ON {' AND '.join(on)}"
    )


def _hash(column: str) -> str:
    # For captions always computed anew, so that an edited caption has no scores.
    return f"sha2(coalesce(CAST(p.{column} AS BINARY), X''), 256)"


def _require(ref: str, columns: Sequence[str], needed: Sequence[str]) -> None:
    missing = [name for name in needed if name not in columns]
    if missing:
        raise UsageError(f"{ref} has no column {', '.join(missing)} to join pairs on")
