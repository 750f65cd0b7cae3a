"""Tables that are joined to the scores, so that rules can use their columns as signals.

    --signals my/signals                        columns as they are called, or `signals.width`
    --signals clip=other/scores.parquet         or `clip.clip_score`
    --signals "urls.csv on image_sha=sha256"    joined on a key of its own
    --signals "my/scores scorer 0123abcd"       one scorer's rows of a scores table

Without ``on``, tables are joined on what they have of the key of the scores table: a scores table
on `uid, image_sha, caption_sha, copy`, a signals table on `uid, image_sha, caption_sha`, any other
on `uid`. Rows that have the same key and agree count once; rows that disagree are an error.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T

from ..core.errors import UsageError
from ..rules.column_types import SCORES, Place
from ..rules.syntax_tree import Kind
from ..rules.table_statistics import takes_part
from ..tables import external_table
from ..tables.delta import quoted
from ..tables.pairs import PAIRS_KEYS
from ..tables.scores import KEYS

PAIRS = "pairs"
"""What rules call the pairs table."""

_SPEC = re.compile(
    r"\s*(?:(?P<name>[A-Za-z_]\w*)=)?(?P<ref>.+?)"
    r"(?:\s+on\s+(?P<keys>\w+(?:=\w+)?(?:\s*,\s*\w+(?:=\w+)?)*))?"
    r"(?:\s+scorer\s+(?P<scorer>\S+))?\s*",
    re.DOTALL,
)
_PLAIN = r"\w+(?:=\w+)?"


@dataclass(frozen=True)
class Source:
    """What an option says of a table; ``keys``: column of the scores -> column of the table."""

    name: str
    ref: str
    keys: Mapping[str, str]
    scorer: str | None = None


@dataclass(frozen=True)
class SignalTable:
    """A table to be joined.

    Attributes:
        source: what the option said; its keys are settled.
        frame: the table, all columns.
        is_pairs: whether it is the pairs table: then a column of another table is meant before its
            own, and of rows that disagree the least counts, rather than that they are an error.
    """

    source: Source
    frame: DataFrame
    is_pairs: bool = False

    @property
    def places(self) -> list[Place]:
        """Its columns as rules see them, without the keys that the scores have as well."""
        shared = {column for key, column in self.source.keys.items() if key == column}
        return [
            replace(each, column=f"{self.source.name}.{each.name}", last=self.is_pairs)
            for each in places_of(self.frame, self.source.name)
            if each.name not in shared
        ]


def places_of(frame: DataFrame, table: str) -> list[Place]:
    """The columns of a table as rules see them, under the names that they have in it."""
    return [
        Place(f.name, table, f.name, kind_of(f.dataType), f.dataType.simpleString())
        for f in frame.schema
    ]


def parse_source(text: str, default_keys: Sequence[str] = ()) -> Source:
    """Read ``[NAME=]TABLE [on KEY[=COLUMN],...] [scorer ID]``.

    Raises:
        UsageError: the table has no name that a rule could use.
    """
    found = _SPEC.fullmatch(text)
    if not found:
        raise UsageError(f"--signals {text!r}: write [NAME=]TABLE [on KEY,KEY]")
    ref = found["ref"]
    last = re.split(r"[/.]", any_table_stem(ref))[-1]
    name = found["name"] or re.sub(r"\W", "_", last)
    if not re.fullmatch(r"[A-Za-z_]\w*", name) or name.lower() in (SCORES, PAIRS):
        raise UsageError(f"--signals {text}: give the table a name, as in clip={ref}")
    keys = re.findall(_PLAIN, found["keys"] or "") or list(default_keys)
    pairs = [key.partition("=") for key in keys]
    return Source(name, ref, {key: column or key for key, _, column in pairs}, found["scorer"])


def any_table_stem(ref: str) -> str:
    """A reference without the ending of a file."""
    known = (*external_table.CSV, ".json", ".jsonl", ".ndjson", ".parquet", ".delta")
    end = external_table.ending(ref)
    return ref.rstrip("/").removesuffix(end) if end in known else ref.rstrip("/")


def kind_of(held: T.DataType) -> Kind | None:
    """What a column of a type is good for in rules."""
    if isinstance(held, T.NumericType):
        return "number"
    if isinstance(held, T.StringType):
        return "text"
    return "truth" if isinstance(held, T.BooleanType) else None


def load(spark: SparkSession, source: Source, key_columns: Sequence[str]) -> SignalTable:
    """Look a table up, and settle its keys and what its columns hold.

    Args:
        spark: the session.
        source: which table.
        key_columns: the columns of the scores table.

    Raises:
        UsageError: no such table, key column or scorer; or several scorers.
    """
    frame = external_table.read_table(spark, source.ref, "--signals")
    option = f"--signals {source.ref}"
    if source.scorer or {"scorer", *KEYS} <= set(frame.columns):
        frame = _of_one_scorer(frame, source, option)
    keys = source.keys or {key: key for key in _usual_keys(frame.columns)}
    for key, name in keys.items():
        if key not in key_columns:
            raise UsageError(f"{option}: the scores table has no column {key} to join on")
        external_table.find_column(frame, name, option, "the table")
    if external_table.ending(source.ref) in external_table.CSV:
        frame = _typed(frame, set(keys.values()))
    return SignalTable(replace(source, keys=keys), frame)


def of_pairs(keyed: DataFrame, ref: str) -> SignalTable:
    """The pairs table (with keys), for rules on its columns."""
    keys = {key: key for key in PAIRS_KEYS}
    return SignalTable(Source(PAIRS, ref, keys), keyed, is_pairs=True)


def _usual_keys(columns: Sequence[str]) -> list[str]:
    if "scorer" in columns and set(KEYS) <= set(columns):
        return list(KEYS)
    pair = [key for key in KEYS if key != "copy"]
    return pair if set(pair) <= set(columns) else ["uid"]


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


def _typed(frame: DataFrame, keys: set[str]) -> DataFrame:
    """A CSV's columns as numbers, or true and false, where all that they hold is such. One pass."""
    names = [name for name in frame.columns if name not in keys]
    if not names:
        return frame
    given = {name: F.col(quoted(name)) for name in names}
    counts = [F.count(column) for column in given.values()]
    counts += [F.count(column.try_cast("double")) for column in given.values()]
    words = [F.lower(F.trim(column)) for column in given.values()]
    counts += [F.count_if(word.isin("true", "false")) for word in words]
    (found,) = frame.agg(*counts).collect()
    columns = []
    for number, (name, column) in enumerate(given.items()):
        filled, numbers, truths = found[number :: len(names)]
        if filled and filled == numbers:
            given[name] = column.try_cast("double")
        elif filled and filled == truths:
            given[name] = F.lower(F.trim(column)) == "true"
    columns = [given.get(name, F.col(quoted(name))).alias(name) for name in frame.columns]
    return frame.select(*columns)


def joined(
    scores: DataFrame, table: SignalTable, used: Sequence[str]
) -> tuple[DataFrame, dict[str, Any]]:
    """``scores`` with the columns ``used`` of a table, as `name.column`; and what the join lost.

    Each row of the scores stays as it is, once. Two Spark jobs count: `rows` of the table,
    `unused` ones among them (without a row of the scores), and `missing`: scored rows for which
    the table has no row.

    Raises:
        UsageError: several rows for one key disagree.
    """
    source = table.source
    keys = {f"__key_{number}": pair for number, pair in enumerate(source.keys.items())}
    of_scores = _as_text({name: key for name, (key, _) in keys.items()})
    of_table = _as_text({name: column for name, (_, column) in keys.items()})
    counts = _counted(scores.select(*of_scores, takes_part().alias("scored")), table, of_table)
    columns = [F.col(quoted(name)).alias(f"{source.name}.{name}") for name in used]
    right = table.frame.select(*of_table, *columns)
    if counts.pop("repeated"):
        right = _one_each(right, list(keys), table, counts)
    right = right.toDF(*(f"of{name}" if name in keys else name for name in right.columns))
    same = [F.col(name) == F.col(f"of{name}") for name in keys]
    left = scores.withColumns({name: _text(key) for name, (key, _) in keys.items()})
    frame = left.join(right, on=same, how="left").drop(*keys, *(f"of{name}" for name in keys))
    told = {"name": source.name, "table": source.ref, "keys": dict(source.keys)}
    return frame, told | counts


def _text(name: str) -> Column:
    return F.col(quoted(name)).cast("string")


def _as_text(columns: Mapping[str, str]) -> list[Column]:
    return [_text(column).alias(name) for name, column in columns.items()]


def _counted(scores: DataFrame, table: SignalTable, keys: Sequence[Column]) -> dict[str, int]:
    """How the keys of both sides meet; `repeated`: keys that the table has more than once.

    Keys are told apart by 128 bits of hash: less to shuffle than long keys.
    """
    names = [name for name in scores.columns if name != "scored"]
    sides = (
        (scores, {"in_scores": F.lit(1), "scored": F.col("scored").cast("int")}),
        (table.frame.select(*keys), {"in_table": F.lit(1)}),
    )
    rows = []
    for frame, counts in sides:
        whole = F.lit(True)
        for name in names:
            whole = whole & F.col(name).isNotNull()  # null meets nothing
        key = {"one": F.xxhash64(*names), "other": F.xxhash64(F.lit(1), *names), "whole": whole}
        sums = {name: counts.get(name, F.lit(0)) for name in ("in_scores", "scored", "in_table")}
        rows.append(frame.select(*(c.alias(name) for name, c in (key | sums).items())))
    sums_of = [F.sum(name).alias(name) for name in ("in_scores", "scored", "in_table")]
    met = rows[0].unionByName(rows[1]).groupBy("one", "other", "whole").agg(*sums_of)
    meets = F.col("whole") & (F.col("in_scores") > 0) & (F.col("in_table") > 0)
    (row,) = met.agg(
        F.sum("in_table"),
        F.sum(F.when(~meets, F.col("in_table"))),
        F.sum(F.when(~meets, F.col("scored"))),
        F.count_if(F.col("whole") & (F.col("in_table") > 1)),
    ).collect()
    told = ("rows", "unused", "missing", "repeated")
    return {name: int(value or 0) for name, value in zip(told, row, strict=True)}


def _one_each(
    right: DataFrame, keys: Sequence[str], table: SignalTable, counts: dict[str, int]
) -> DataFrame:
    """One row for each key; adds `disagreeing` keys to ``counts``."""
    values = [quoted(name) for name in right.columns if name not in keys]
    given = F.struct(*values)
    least = right.groupBy(*keys).agg(
        F.min(given).alias("least"), (F.min(given) != F.max(given)).alias("differ")
    )
    known = least.where("differ").where(" AND ".join(f"{key} IS NOT NULL" for key in keys))
    counts["disagreeing"] = known.count()
    if counts["disagreeing"] and not table.is_pairs:
        example = known.select(*keys).orderBy(*keys).first()
        named = ", ".join(
            f"{k} {v!r}" for k, v in zip(table.source.keys, example or (), strict=True)
        )
        raise UsageError(
            f"--signals {table.source.ref}: {counts['disagreeing']:,} keys have several rows with"
            f" different values ({named}): give it one row for each key, or other keys by `on`"
        )
    return least.select(*keys, "least.*")


def shown(told: Iterable[Mapping[str, Any]]) -> list[str]:
    """What the joins lost, a line a table, for people."""
    lines = []
    for each in told:
        keys = ", ".join(k if k == c else f"{k}={c}" for k, c in each["keys"].items())
        line = (
            f"{each['name']}: {each['rows']:,} rows joined on {keys};"
            f" {each['missing']:,} scored rows found none, {each['unused']:,} fit no row"
        )
        if each.get("disagreeing"):
            line += f"; {each['disagreeing']:,} keys have rows that differ: the least counts"
        lines.append(line)
    return lines
