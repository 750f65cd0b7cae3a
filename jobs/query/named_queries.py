"""The page of queries, conf/queries.sql, as named queries.

A query begins with `-- name: its_name`; the comment lines below that say what it tells; a
semicolon ends it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..core.errors import UsageError
from ..core.settings import conf_file, nearest
from ..tables.sql_views import JOINED, TABLES

_VIEW = re.compile(r"\b(?:FROM|JOIN)\s+(\w+)")


@dataclass(frozen=True)
class Query:
    """One query: what it tells, and the tables that it needs."""

    name: str
    about: str
    sql: str
    tables: tuple[str, ...]


def load() -> dict[str, Query]:
    """All queries of the page, by name."""
    return parse(conf_file("queries.sql").read_text(encoding="utf-8"))


def find(name: str) -> Query:
    """The query of that name. Raises UsageError that names the nearest."""
    queries = load()
    if name in queries:
        return queries[name]
    guess = nearest(name, tuple(queries))
    hint = f"did you mean {guess}?" if guess else f"there are {', '.join(queries)}"
    raise UsageError(f"there is no query {name}; {hint}")


def parse(text: str) -> dict[str, Query]:
    """The queries of a page, in its order."""
    found = {}
    for part in re.split(r"^-- name: *", text, flags=re.MULTILINE)[1:]:
        head, *lines = part.rstrip().splitlines()
        comments = [line for line in lines if line.startswith("--")]
        sql = "\n".join(line for line in lines if line not in comments).strip().rstrip(";")
        about = " ".join(line.removeprefix("--").strip() for line in comments)
        found[head.strip()] = Query(head.strip(), about, sql, tables_of(sql))
    return found


def tables_of(sql: str) -> tuple[str, ...]:
    """The tables behind the views that a query reads."""
    views = _VIEW.findall(sql)
    needed = {view for view in views if view in TABLES}
    for view, other in JOINED.items():
        if view in views:
            needed |= {"pairs", other}
    return tuple(name for name in TABLES if name in needed)
