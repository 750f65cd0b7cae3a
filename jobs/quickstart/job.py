"""Sample pairs -> scores -> filtered pairs, as Delta tables in one folder; a summary and a report.

    mlm-filter quickstart [--output FOLDER]

Runs the same jobs that you run on your own data. Running it again scores nothing twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from pydantic import Field
from pyspark.sql import Row, SparkSession
from pyspark.sql import functions as F

from udfs.core.metrics import METRIC_NAMES, METRICS
from udfs.starter.model import STARTER, is_starter, is_trained

from ..core.job_runner import main as run_job
from ..core.job_runner import say
from ..core.settings import JobConfig
from ..filter import job as filter_job
from ..filter.settings import FilterConfig
from ..ingest import job as ingest
from ..ingest.settings import IngestConfig
from ..report import job as report
from ..score import job as score
from ..score.settings import ScoreConfig
from ..tables import delta
from ..tables.pairs import PAIRS_KEYS

CAPTION_WIDTH = 72
RULES = ["top 50% of itm", "top 50% of ctq"]


class QuickstartConfig(JobConfig):
    """Score and filter the sample pairs, with Delta tables in one folder."""

    output: str = Field(default="quickstart", description="folder for the tables")
    model: str = Field(default=STARTER, description="model to score with, as for the score job")


def run(spark: SparkSession, config: QuickstartConfig) -> dict[str, Any]:
    """Run ingest, score, filter and report one after the other; print a summary."""
    folder = Path(config.output).expanduser().resolve()
    tables = {name: str(folder / name) for name in ("pairs", "scores", "selection", "filtered")}
    if config.dry_run:
        say(f"would create the tables {', '.join(tables)} in {folder}")
        return {"dry_run": True, "output": str(folder)}
    say("[1/4] ingest: the sample pairs")
    ingested = ingest.run(
        spark, IngestConfig(source="samples", output=tables["pairs"], mode="append")
    )
    say("[2/4] score: four metrics per pair, in one pass through the model")
    scored = score.run(
        spark,
        ScoreConfig(
            pairs=tables["pairs"], scores=tables["scores"], model=config.model, limit=config.limit
        ),
    )
    say(f"[3/4] filter: {' AND '.join(RULES)}")
    filtered = filter_job.run(
        spark,
        FilterConfig(
            scores=tables["scores"],
            selection=tables["selection"],
            pairs=tables["pairs"],
            output=tables["filtered"],
            rule=RULES,
            scorer=scored["scorer"],
        ),
    )
    report_path = folder / "report.html"
    say(f"[4/4] report: {report_path}")
    report.run(
        spark,
        report.ReportConfig(
            selection=tables["selection"],
            scores=tables["scores"],
            pairs=tables["pairs"],
            output=str(report_path),
        ),
    )
    rows = summary_rows(spark, tables["pairs"], tables["selection"])
    _print_photos(rows)
    _print_next_steps(folder, tables, config.model)
    return {
        "output": str(folder),
        "report": str(report_path),
        "pairs": ingested["rows"],
        "scored": sum(row["itm"] is not None for row in rows),
        "kept": filtered["kept"],
        "scorer": scored["scorer"],
        "rows_per_second": scored["rows_per_second"],
    }


def summary_rows(spark: SparkSession, pairs: str, selection: str) -> list[Row]:
    """The rows of the selection with their captions, best first within each photo."""
    keys = list(PAIRS_KEYS)
    captions = delta.read(spark, pairs).select(*keys, "file", "kind", "caption")
    rows = delta.read(spark, selection).join(captions, on=keys, how="inner")
    return rows.orderBy("file", F.col("itm").desc_nulls_last(), "uid").collect()


def _print_photos(rows: Sequence[Row]) -> None:
    say("", "Each photo's captions by their image-text matching score (* marks the kept ones):")
    for photo, captions in groupby(rows, key=lambda row: row["file"]):
        say("", photo, "    " + "".join(f"{metric:>6}" for metric in METRICS))
        for row in captions:
            scores = "".join("     -" if row[m] is None else f"{row[m]:6.1f}" for m in METRICS)
            text = " ".join(row["caption"].split())
            short = text if len(text) <= CAPTION_WIDTH else text[: CAPTION_WIDTH - 1] + "\u2026"
            say(f"  {'*' if row['keep'] else ' '} {scores}  {row['kind']:12}  {short}")
    say("", ", ".join(f"{metric}: {METRIC_NAMES[metric]}" for metric in METRICS) + "; 0..100")


def _print_next_steps(folder: Path, tables: dict[str, str], model: str) -> None:
    if is_starter(model) and not is_trained(model):
        say(
            "The starter model has not been trained to score yet: its numbers show what the tables"
            " look like,",
            "not which captions are good. For real scores name a fine-tuned --model.",
        )
    text = f"""
Delta tables: {", ".join(tables)} and scores_runs, in {folder}
To look at in a browser: {folder / "report.html"}

Next, on your own data (a folder of Parquet with image bytes and captions):
  mlm-filter ingest --source parquet --input DATA --caption-column caption --output my/pairs
  mlm-filter score  --pairs my/pairs --scores my/scores --limit 500
  mlm-filter filter --scores my/scores --selection my/selection --rule "top 30% of odf" \\
                    --pairs my/pairs --output my/filtered
  mlm-filter report --selection my/selection --scores my/scores --pairs my/pairs \\
                    --output my/report.html
mlm-filter was installed into .venv/bin; `mlm-filter JOB --help` lists a job's options."""
    say(*text.split("\n"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; return its exit code."""
    return run_job("quickstart", QuickstartConfig, run, argv)
