"""Reads the ready-made queries of conf/queries.sql.

A query begins with `-- name: its_name`; the comment lines below it say what the query answers;
a semicolon ends it.
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
    """One query: its name, what it answers, its SQL, and the tables that it needs."""

    name: str
    about: str
    sql: str
    tables: tuple[str, ...]


def load() -> dict[str, Query]:
    """All queries of conf/queries.sql, by name."""
    return parse(conf_file("queries.sql").read_text(encoding="utf-8"))


def find(name: str) -> Query:
    """The query of that name. Raises UsageError, which names the most similar one."""
    queries = load()
    if name in queries:
        return queries[name]
    guess = nearest(name, tuple(queries))
    hint = f"did you mean {guess}?" if guess else f"the queries are {', '.join(queries)}"
    raise UsageError(f"there is no query {name}; {hint}")


def parse(text: str) -> dict[str, Query]:
    """The queries in the text of such a file, in its order."""
    queries = {}
    for part in re.split(r"^-- name: *", text, flags=re.MULTILINE)[1:]:
        head, *lines = part.rstrip().splitlines()
        comments = [line for line in lines if line.startswith("--")]
        sql = "\n".join(line for line in lines if line not in comments).strip().rstrip(";")
        about = " ".join(line.removeprefix("--").strip() for line in comments)
        queries[head.strip()] = Query(head.strip(), about, sql, tables_of(sql))
    return queries


def tables_of(sql: str) -> tuple[str, ...]:
    """The tables behind the views that a query reads."""
    views = _VIEW.findall(sql)
    required = {view for view in views if view in TABLES}
    for view, other in JOINED.items():
        if view in views:
            required |= {"pairs", other}
    return tuple(name for name in TABLES if name in required)
