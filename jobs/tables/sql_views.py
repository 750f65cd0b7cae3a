"""The project's tables as SQL finds them: one view a table, and the pairs beside what was found.

    create_views(spark, pairs="my/pairs", scores="my/scores", selection="my/selection")
    spark.sql("SELECT status, count(*) FROM scores GROUP BY status")
    spark.sql("SELECT caption, itm FROM scored_pairs ORDER BY itm DESC LIMIT 10")

Without a schema the views live as long as the session; with one they are kept in the catalog.
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
from .delta import quoted

TABLES = {
    "pairs": "images and captions",
    "scores": "what each scorer says of each pair",
    "selection": "which pairs are kept, and which rule the others have failed",
    "signals": "cheap facts about each pair: size, language, duplicates",
    "runs": "one row a run of the score job",
    "evaluation": "how scores agree with ratings",
}
"""Tables that there may be a view of, by its name."""

JOINED = {
    "scored_pairs": "scores",
    "selected_pairs": "selection",
}
"""Views of pairs beside the rows of another table; that table."""

_ABOUT_JOINED = {
    "scored_pairs": "each pair once for each scorer that has answered, or once without scores",
    "selected_pairs": "each pair with its fate in the selection",
}
_KEYS = ("uid", "image_sha", "caption_sha")


class TablesConfig(JobConfig):
    """Settings of a job over the views: which tables there are."""

    pairs: str | None = Field(None, description="pairs table")
    scores: str | None = Field(None, description="scores table")
    selection: str | None = Field(None, description="selection table")
    signals: str | None = Field(None, description="signals table")
    runs: str | None = Field(None, description="runs table (default: that of --scores)")
    evaluation: str | None = Field(None, description="evaluation table")

    def refs(self) -> dict[str, str]:
        """`TABLES` name -> reference, of those that are given."""
        found = {name: getattr(self, name) for name in TABLES}
        return {name: ref for name, ref in found.items() if ref}


@dataclass(frozen=True)
class View:
    """A view: the query behind it, and its columns with their comments."""

    name: str
    query: str
    columns: T.StructType
    about: str


def views_of(spark: SparkSession, refs: Mapping[str, str]) -> list[View]:
    """The views that these tables (`TABLES` name -> reference) make.

    Raises:
        UsageError: a table that is not there, or lacks the columns to join by.
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

    With `schema` (`schema` or `catalog.schema`) they are kept in the catalog, with the comments of
    the columns as they are now; a view whose name is that of its own table is left out.
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
    about = _text(view.about)
    return f"CREATE OR REPLACE VIEW {name} ({columns}) COMMENT {about} AS {view.query}"


def _column(field: T.StructField) -> str:
    comment = field.metadata.get("comment")
    return quoted(field.name) + (f" COMMENT {_text(comment)}" if comment else "")


def _text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _joined(pairs_ref: str, pairs: DataFrame, ref: str, other: DataFrame) -> str:
    """Every row of the pairs table beside the other's answer to its content.

    A copy (a further row that is just the same) has the answer to the first: rows of `copy` 1, 2
    ... only say that it is one.
    """
    _require(pairs_ref, pairs.columns, ("uid", "caption"))
    _require(ref, other.columns, _KEYS)
    if "image_sha" not in pairs.columns:
        _require(pairs_ref, pairs.columns, ("image",))
    image = "p.image_sha" if "image_sha" in pairs.columns else _hash("image")
    told = [name for name in other.columns if name not in _KEYS and name != "copy"]
    taken = {name.lower() for name in told}
    own = [name for name in pairs.columns if name.lower() not in taken]
    columns = [f"p.{quoted(name)}" for name in own] + [f"o.{quoted(name)}" for name in told]
    on = ["p.uid <=> o.uid", f"{image} = o.image_sha", f"{_hash('caption')} = o.caption_sha"]
    if "copy" in other.columns:
        on.append("o.copy = 0")
    return (
        f"SELECT {', '.join(columns)} FROM {delta.sql_name(pairs_ref)} AS p"
        f" LEFT JOIN {delta.sql_name(ref)} AS o ON {' AND '.join(on)}"
    )


def _hash(column: str) -> str:
    # of captions always anew, so that an edited one is seen to have no scores
    return f"sha2(coalesce(CAST(p.{column} AS BINARY), X''), 256)"


def _require(ref: str, there: Sequence[str], needed: Sequence[str]) -> None:
    missing = [name for name in needed if name not in there]
    if missing:
        raise UsageError(f"{ref} has no column {', '.join(missing)} to join pairs by")
