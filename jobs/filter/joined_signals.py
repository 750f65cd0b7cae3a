"""Joins other tables to the scores, so that rules can use their columns as signals.

    --signals my/signals                        columns by their names, or `signals.width`
    --signals clip=other/scores.parquet         or `clip.clip_score`
    --signals "urls.csv on image_sha=sha256"    joined on a key of your choice
    --signals "my/scores scorer 0123abcd"       one scorer's rows of a scores table

Without ``on``, tables are joined on those key columns of the scores table that they have: a scores
table on `uid, image_sha, caption_sha, copy`, a signals table on `uid, image_sha, caption_sha`, any
other on `uid`. Duplicate rows count once; rows with one key but different values are an error.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from ..core.errors import UsageError
from ..rules.column_types import SCORES, NamedColumn
from ..rules.syntax_tree import Kind
from ..rules.table_statistics import is_scored
from ..tables import external_table
from ..tables.delta import quoted
from ..tables.pairs import PAIRS_KEYS
from ..tables.scores import KEYS

PAIRS = "pairs"
"""The name of the pairs table in rules."""

_SPEC = re.compile(
    r"\s*(?:(?P<name>[A-Za-z_]\w*)=)?(?P<ref>.+?)"
    r"(?:\s+on\s+(?P<keys>\w+(?:=\w+)?(?:\s*,\s*\w+(?:=\w+)?)*))?"
    r"(?:\s+scorer\s+(?P<scorer>\S+))?\s*",
    re.DOTALL,
)
_KEY_PATTERN = r"\w+(?:=\w+)?"


@dataclass(frozen=True)
class Source:
    """A table as a `--signals` option names it; ``keys``: column of the scores -> of the table."""

    name: str
    ref: str
    keys: Mapping[str, str]
    scorer: str | None = None


@dataclass(frozen=True)
class SignalTable:
    """A table to be joined.

    Attributes:
        source: the parsed option, with the keys to join on.
        frame: the table, with all columns.
        is_pairs: whether it is the pairs table. If so, a column of the same name in another table
            comes before its own, and of rows with the same key and different values the least is
            used, which for other tables is an error.
    """

    source: Source
    frame: DataFrame
    is_pairs: bool = False

    @property
    def columns(self) -> list[NamedColumn]:
        """Its columns as rules see them, without the keys that the scores have as well."""
        shared = {column for key, column in self.source.keys.items() if key == column}
        name = self.source.name
        return [
            replace(each, joined_name=f"{name}.{each.name}", is_fallback=self.is_pairs)
            for each in named_columns(self.frame, name)
            if each.name not in shared
        ]


def named_columns(frame: DataFrame, table: str) -> list[NamedColumn]:
    """The columns of a table as rules see them, under their names in the table."""
    return [
        NamedColumn(f.name, table, f.name, kind_of(f.dataType), f.dataType.simpleString())
        for f in frame.schema
    ]


def parse_source(text: str, default_keys: Sequence[str] = ()) -> Source:
    """Parse ``[NAME=]TABLE [on KEY[=COLUMN],...] [scorer ID]``.

    Raises:
        UsageError: the text has another form, or the table has no name that a rule could use.
    """
    match = _SPEC.fullmatch(text)
    if not match:
        raise UsageError(f"--signals {text!r}: write [NAME=]TABLE [on KEY,KEY]")
    ref = match["ref"]
    base_name = re.split(r"[/.]", _table_stem(ref))[-1]
    name = match["name"] or re.sub(r"\W", "_", base_name)
    if not re.fullmatch(r"[A-Za-z_]\w*", name) or name.lower() in (SCORES, PAIRS):
        raise UsageError(f"--signals {text}: give the table a name, as in clip={ref}")
    keys = re.findall(_KEY_PATTERN, match["keys"] or "") or list(default_keys)
    pairs = [key.partition("=") for key in keys]
    return Source(name, ref, {key: column or key for key, _, column in pairs}, match["scorer"])


def _table_stem(ref: str) -> str:
    """A table reference without its file extension, if it has a known one."""
    extensions = (*external_table.CSV, ".json", ".jsonl", ".ndjson", ".parquet", ".delta")
    extension = external_table.ending(ref)
    return ref.rstrip("/").removesuffix(extension) if extension in extensions else ref.rstrip("/")


def kind_of(data_type: T.DataType) -> Kind | None:
    """The type of a column in rules; None if rules cannot use it."""
    if isinstance(data_type, T.NumericType):
        return "number"
    if isinstance(data_type, T.StringType):
        return "text"
    return "truth" if isinstance(data_type, T.BooleanType) else None


def load(spark: SparkSession, source: Source, key_columns: Sequence[str]) -> SignalTable:
    """Open a table, determine its join keys, and for CSV the types of its columns.

    Args:
        spark: the session.
        source: the parsed option.
        key_columns: the columns of the scores table, which keys must be among.

    Raises:
        UsageError: no such table, key column or scorer; or several scorers.
    """
    frame = external_table.read_table(spark, source.ref, "--signals")
    option = f"--signals {source.ref}"
    if source.scorer or {"scorer", *KEYS} <= set(frame.columns):
        frame = _of_one_scorer(frame, source, option)
    keys = source.keys or {key: key for key in _default_keys(frame.columns)}
    for key, name in keys.items():
        if key not in key_columns:
            raise UsageError(f"{option}: the scores table has no column {key} to join on")
        external_table.find_column(frame, name, option, "the table")
    if external_table.ending(source.ref) in external_table.CSV:
        frame = _infer_types(frame, set(keys.values()))
    return SignalTable(replace(source, keys=keys), frame)


def pairs_table(keyed: DataFrame, ref: str) -> SignalTable:
    """The pairs table (with keys), so that rules can use its columns."""
    keys = {key: key for key in PAIRS_KEYS}
    return SignalTable(Source(PAIRS, ref, keys), keyed, is_pairs=True)


def _default_keys(columns: Sequence[str]) -> list[str]:
    if "scorer" in columns and set(KEYS) <= set(columns):
        return list(KEYS)
    pair_keys = [key for key in KEYS if key != "copy"]
    return pair_keys if set(pair_keys) <= set(columns) else ["uid"]


def _of_one_scorer(frame: DataFrame, source: Source, option: str) -> DataFrame:
    external_table.find_column(frame, "scorer", option, "the table")
    scorers = sorted(str(row[0]) for row in frame.select("scorer").distinct().collect())
    if source.scorer is None and len(scorers) > 1:
        raise UsageError(
            f'{option} has several scorers; choose one: --signals "{source.name}={source.ref}'
            f' scorer ID", ID being one of {", ".join(scorers)}'
        )
    if source.scorer is not None and source.scorer not in scorers:
        raise UsageError(f"{option} has no scorer {source.scorer}; it has {', '.join(scorers)}")
    return frame.where(F.col("scorer") == source.scorer) if source.scorer else frame


def _infer_types(frame: DataFrame, keys: set[str]) -> DataFrame:
    """A CSV with its columns as numbers or booleans, where all their values are such. One pass."""
    names = [name for name in frame.columns if name not in keys]
    if not names:
        return frame
    typed = {name: F.col(quoted(name)) for name in names}
    counts = [F.count(column) for column in typed.values()]
    counts += [F.count(column.try_cast("double")) for column in typed.values()]
    words = [F.lower(F.trim(column)) for column in typed.values()]
    counts += [F.count_if(word.isin("true", "false")) for word in words]
    (row,) = frame.agg(*counts).collect()
    for index, (name, column) in enumerate(typed.items()):
        filled, numbers, booleans = row[index :: len(names)]
        if filled and filled == numbers:
            typed[name] = column.try_cast("double")
        elif filled and filled == booleans:
            typed[name] = F.lower(F.trim(column)) == "true"
    columns = [typed.get(name, F.col(quoted(name))).alias(name) for name in frame.columns]
    return frame.select(*columns)


def join(
    scores: DataFrame, table: SignalTable, used: Sequence[str]
) -> tuple[DataFrame, dict[str, Any]]:
    """``scores`` with the columns ``used`` of a table, as `name.column`; and counts of matches.

    The rows of the scores stay the same. Two Spark jobs count the `rows` of the table, those of
    them that match no scores (`unused`), and the scored rows without a match (`missing`).

    Raises:
        UsageError: several rows with the same key have different values.
    """
    source = table.source
    keys = {f"__key_{number}": pair for number, pair in enumerate(source.keys.items())}
    of_scores = _as_text({name: key for name, (key, _) in keys.items()})
    of_table = _as_text({name: column for name, (_, column) in keys.items()})
    counts = _count_matches(scores.select(*of_scores, is_scored().alias("scored")), table, of_table)
    columns = [F.col(quoted(name)).alias(f"{source.name}.{name}") for name in used]
    right = table.frame.select(*of_table, *columns)
    if counts.pop("repeated"):
        right = _one_row_per_key(right, list(keys), table, counts)
    right = right.toDF(*(f"of{name}" if name in keys else name for name in right.columns))
    same = [F.col(name) == F.col(f"of{name}") for name in keys]
    left = scores.withColumns({name: _text(key) for name, (key, _) in keys.items()})
    frame = left.join(right, on=same, how="left").drop(*keys, *(f"of{name}" for name in keys))
    summary = {"name": source.name, "table": source.ref, "keys": dict(source.keys)}
    return frame, summary | counts


def _text(name: str) -> Column:
    return F.col(quoted(name)).cast("string")


def _as_text(columns: Mapping[str, str]) -> list[Column]:
    return [_text(column).alias(name) for name, column in columns.items()]


def _count_matches(scores: DataFrame, table: SignalTable, keys: Sequence[Column]) -> dict[str, int]:
    """How the keys of both sides match; `repeated`: keys that the table has more than once.

    Keys are compared by a hash of 128 bits: less data to shuffle than long keys.
    """
    names = [name for name in scores.columns if name != "scored"]
    sides = (
        (scores, {"in_scores": F.lit(1), "scored": F.col("scored").cast("int")}),
        (table.frame.select(*keys), {"in_table": F.lit(1)}),
    )
    rows = []
    for frame, counts in sides:
        complete = F.lit(True)
        for name in names:
            complete = complete & F.col(name).isNotNull()  # null matches nothing
        hashes = {"low_hash": F.xxhash64(*names), "high_hash": F.xxhash64(F.lit(1), *names)}
        key = hashes | {"complete": complete}
        sums = {name: counts.get(name, F.lit(0)) for name in ("in_scores", "scored", "in_table")}
        rows.append(frame.select(*(c.alias(name) for name, c in (key | sums).items())))
    sums_of = [F.sum(name).alias(name) for name in ("in_scores", "scored", "in_table")]
    by_key = rows[0].unionByName(rows[1]).groupBy("low_hash", "high_hash", "complete").agg(*sums_of)
    matches = F.col("complete") & (F.col("in_scores") > 0) & (F.col("in_table") > 0)
    (row,) = by_key.agg(
        F.sum("in_table"),
        F.sum(F.when(~matches, F.col("in_table"))),
        F.sum(F.when(~matches, F.col("scored"))),
        F.count_if(F.col("complete") & (F.col("in_table") > 1)),
    ).collect()
    names = ["rows", "unused", "missing", "repeated"]
    return {name: int(value or 0) for name, value in zip(names, row, strict=True)}


def _one_row_per_key(
    right: DataFrame, keys: Sequence[str], table: SignalTable, counts: dict[str, int]
) -> DataFrame:
    """One row for each key; adds `disagreeing` keys to ``counts``."""
    values = [quoted(name) for name in right.columns if name not in keys]
    struct = F.struct(*values)
    least = right.groupBy(*keys).agg(
        F.min(struct).alias("least"), (F.min(struct) != F.max(struct)).alias("differ")
    )
    has_key = " AND ".join(f"{key} IS NOT NULL" for key in keys)
    disagreeing = least.where("differ").where(has_key)
    counts["disagreeing"] = disagreeing.count()
    if counts["disagreeing"] and not table.is_pairs:
        example = disagreeing.select(*keys).orderBy(*keys).first()
        example_key = ", ".join(
            f"{k} {v!r}" for k, v in zip(table.source.keys, example or (), strict=True)
        )
        raise UsageError(
            f"--signals {table.source.ref}: {counts['disagreeing']:,} keys have several rows with"
            f" different values ({example_key}): give it one row per key, or use other keys (`on`)"
        )
    return least.select(*keys, "least.*")


def report_lines(joins: Iterable[Mapping[str, Any]]) -> list[str]:
    """How each table matched the scores, a line for each, to print."""
    lines = []
    for each in joins:
        keys = ", ".join(k if k == c else f"{k}={c}" for k, c in each["keys"].items())
        line = (
            f"{each['name']}: {each['rows']:,} rows joined on {keys}; {each['unused']:,} of them"
            f" match no scores, {each['missing']:,} scored rows have no match"
        )
        if each.get("disagreeing"):
            line += f"; {each['disagreeing']:,} keys have rows that differ: the least is used"
        lines.append(line)
    return lines
