"""Query the tables in SQL: a query of conf/queries.sql by its name, or your own.

    mlm-filter query
    mlm-filter query --name score_histogram --scores S
    mlm-filter query --sql "SELECT status, count(*) FROM scores GROUP BY status" --scores S

Without a name it lists the queries. The tables that are given are read through the views of
`tables/sql_views.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from pydantic import Field, model_validator
from pyspark.errors import AnalysisException, ParseException
from pyspark.sql import SparkSession

from ..core import job_runner
from ..core.errors import UsageError, first_line
from ..core.progress import number
from ..tables import runs
from ..tables.sql_views import TablesConfig, create_views
from . import named_queries

MAX_ROWS = 100
_WIDTH = 60


class QueryConfig(TablesConfig):
    """Query the tables in SQL: a ready-made query by its name, or your own."""

    name: str | None = Field(None, description="name of a ready-made query (default: list them)")
    sql: str | None = Field(None, description="your own query over the views")

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        if self.name and self.sql:
            raise UsageError("--name and --sql exclude each other")
        return self


def run(spark: SparkSession, config: QueryConfig) -> dict[str, Any]:
    """Run one query and print its rows; or list the queries."""
    if config.name is None and config.sql is None:
        queries = named_queries.load().values()
        for query in queries:
            flags = " ".join(f"--{table}" for table in query.tables)
            job_runner.say(f"{query.name}  ({flags})", f"    {query.about}")
        return {"queries": [query.name for query in queries]}
    if config.name:
        query = named_queries.find(config.name)
        sql, required = query.sql, query.tables
    else:
        assert config.sql
        sql, required = config.sql.strip().rstrip(";"), named_queries.tables_of(config.sql)
    refs = config.refs()
    if config.scores and "runs" in required:
        refs.setdefault("runs", runs.ref_beside(config.scores))
    missing = [f"--{name}" for name in required if name not in refs]
    if missing:
        raise UsageError(f"{config.name or 'this query'} needs {' and '.join(missing)}")
    if config.dry_run:
        job_runner.say(*sql.splitlines())
        return {"name": config.name, "sql": sql, "dry_run": True}
    create_views(spark, **refs)
    return {"name": config.name, **_print_rows(spark, sql, config.limit or MAX_ROWS)}


def _print_rows(spark: SparkSession, sql: str, limit: int) -> dict[str, Any]:
    """Run the query and print its rows, at most `limit`; return them for the line of JSON."""
    try:
        frame = spark.sql(sql)
        columns = frame.columns
    except (AnalysisException, ParseException) as error:
        raise UsageError(f"--sql: {first_line(error)}") from None
    rows = [row.asDict(recursive=True) for row in frame.limit(limit + 1).collect()]
    table = [[_short(row[column]) for column in columns] for row in rows[:limit]]
    widths = [max(map(len, column)) for column in zip(columns, *table, strict=True)]
    for line in [columns, *table]:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        job_runner.say("  ".join(cells).rstrip())
    if len(rows) > limit:
        job_runner.say(f"... (the first {limit} rows; --limit shows more)")
    return {"columns": columns, "rows": rows[:limit], "more": len(rows) > limit}


def _short(value: Any) -> str:
    shown = number(value) if isinstance(value, float) else "" if value is None else str(value)
    text = " ".join(shown.split())
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "\u2026"


def main(argv: Sequence[str] | None = None) -> int:
    """Run as a program; returns the exit code."""
    return job_runner.main("query", QueryConfig, run, argv)
