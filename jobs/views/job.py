"""Create views for analysts in the catalog: the tables, and pairs joined with scores and verdicts.

    mlm-filter views --output main.web --pairs main.web.pairs --scores main.web.scores \\
                     --selection main.web.selection

`scored_pairs` has each pair once per scorer, `selected_pairs` each pair with the filter's verdict.
A table that is a path, or has another name than its view, gets a view too. A rerun replaces the
views: run it again when columns have been added.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Self

from pydantic import Field, model_validator
from pyspark.sql import SparkSession

from ..core import job_runner
from ..core.errors import UsageError
from ..tables.sql_views import TablesConfig, create_views, views_of


class ViewsConfig(TablesConfig):
    """Create views for analysts in the catalog."""

    output: str = Field(description="where the views go: a schema, or catalog.schema")

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        if self.limit is not None:
            raise UsageError("views takes no --limit: a view is of the whole table")
        if not re.fullmatch(r"[\w`-]+(\.[\w`-]+)?", self.output):
            raise UsageError(f"--output {self.output} is not the name of a schema: main.web, say")
        if not self.refs():
            raise UsageError("there is nothing to create views of: name --pairs, --scores ...")
        return self


def run(spark: SparkSession, config: ViewsConfig) -> dict[str, Any]:
    """Create the views; return their names."""
    if config.dry_run:
        names = [f"{config.output}.{view.name}" for view in views_of(spark, config.refs())]
        job_runner.say(f"would create {', '.join(names)}")
        return {"views": names, "dry_run": True}
    names = create_views(spark, config.output, **config.refs())
    for name in names:
        job_runner.say(name)
    return {"views": names}


def main(argv: Sequence[str] | None = None) -> int:
    """Run as a program; returns the exit code."""
    return job_runner.main("views", ViewsConfig, run, argv)
