"""The forms in which an evaluation is kept: a Delta table, JSON, Markdown, a picture."""

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
    """Write evaluation.json (`document` and all findings), .md and .png; returns their folder."""
    folder = Path(delta.path_of(output))
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    whole = {"run_id": run_id, "evaluated_at": now, **document}
    whole["results"] = [record(finding) for finding in findings]
    written = json.dumps(whole, indent=1, allow_nan=False) + "\n"
    bars, curves = drawn(findings)
    _replace(folder / "evaluation.json", lambda part: _text(part, written))
    _replace(folder / "evaluation.md", lambda part: _text(part, text))
    _replace(folder / "evaluation.png", lambda part: plot.draw(bars, curves, part, interval))
    return folder


def write_table(
    spark: SparkSession, ref: str, run_id: str, findings: Sequence[Finding], confidence: float
) -> None:
    """Put the findings in place of what the table of results holds."""
    same = {"confidence": confidence, "run_id": run_id, "evaluated_at": datetime.now(UTC)}
    records = [record(finding) | same for finding in findings]
    rows = [tuple(one.get(field.name) for field in EVALUATION) for one in records]
    delta.overwrite(spark.createDataFrame(rows, EVALUATION), ref)


def check_replaceable(spark: SparkSession, ref: str) -> None:
    """Refuse to overwrite a table that this job cannot have written."""
    if delta.exists(spark, ref):
        there = set(delta.read(spark, ref).columns)
        if not {"score_column", "statistics", "spearman"} <= there:
            raise UsageError(
                f"{ref} is a table of another kind, which would be replaced: name another"
            )


def drawn(findings: Sequence[Finding]) -> tuple[list[Bar], list[Curve]]:
    """What the picture shows: all columns as bars, the scores on 0..100 as curves."""
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


def _text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _replace(path: Path, write: Callable[[Path], None]) -> None:
    """Write beside `path` and rename: a reader never meets half a file."""
    part = path.with_name(path.name + ".part")
    write(part)
    os.replace(part, path)
