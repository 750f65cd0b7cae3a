"""Writes an evaluation: as a Delta table, JSON, Markdown and a picture."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from udfs.agreement import plot
from udfs.agreement.correlation import Agreement
from udfs.agreement.plot import Bar, Curve

from ..core.errors import UsageError
from ..tables import delta
from .comparison import ALL, Finding
from .evaluation_table import EVALUATION, record


def write_files(
    output: str,
    run_id: str,
    document: Mapping[str, Any],
    findings: Sequence[Finding],
    text: str,
    interval: str,
) -> Path:
    """Write evaluation.json (`document` and all findings), .md and .png; return their folder."""
    folder = Path(delta.path_of(output))
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    content = {"run_id": run_id, "evaluated_at": now, **document}
    content["results"] = [record(finding) for finding in findings]
    json_text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    bars, curves = chart_data(findings)
    _replace(folder / "evaluation.json", lambda part: _write_text(part, json_text))
    _replace(folder / "evaluation.md", lambda part: _write_text(part, text))
    _replace(folder / "evaluation.png", lambda part: plot.draw(bars, curves, part, interval))
    return folder


def write_table(
    spark: SparkSession, ref: str, run_id: str, findings: Sequence[Finding], confidence: float
) -> None:
    """Replace the content of the table of results with the findings."""
    run_columns = {"confidence": confidence, "run_id": run_id, "evaluated_at": datetime.now(UTC)}
    records = [record(finding) | run_columns for finding in findings]
    rows = [tuple(row.get(field.name) for field in EVALUATION) for row in records]
    delta.overwrite(spark.createDataFrame(rows, EVALUATION), ref)


def check_replaceable(spark: SparkSession, ref: str) -> None:
    """Raise UsageError for an existing table that this job cannot have written."""
    if delta.exists(spark, ref):
        columns = set(delta.read(spark, ref).columns)
        if not {"score_column", "statistics", "spearman"} <= columns:
            raise UsageError(
                f"{ref} is a table of another kind, which would be replaced: name another"
            )


def chart_data(findings: Sequence[Finding]) -> tuple[list[Bar], list[Curve]]:
    """The data of the picture: all columns as bars, scores on 0..100 as calibration curves."""
    chosen = [
        (f.comparison, f.rated.label, f.outcome)
        for f in findings
        if isinstance(f.outcome, Agreement) and f.kind == ALL
    ]
    bars = [Bar(c.metric, label, c.reading, found.spearman) for c, label, found in chosen]
    curves = [
        Curve(c.metric, label, tuple((d.score, d.rating) for d in found.calibration))
        for c, label, found in chosen
        if c.reading == "score"
    ]
    return bars, curves


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _replace(path: Path, write: Callable[[Path], None]) -> None:
    """Write beside `path` and rename: a reader never sees half a file."""
    part = path.with_name(path.name + ".part")
    write(part)
    os.replace(part, path)
