"""Show what a filter did: selection (+ scores, pairs) -> one HTML file that works offline.

    mlm-filter report --selection SEL --output report.html
    mlm-filter report --selection SEL --scores S --pairs P --output report.html

Counts are exact, for any number of rows. With --pairs, the page shows the pictures next to each
rule's boundary, and the best and worst by each metric. The file also contains the figures as JSON.
A rerun replaces the file.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from udfs.core.atomic_files import atomic_write
from udfs.report.page import MARK, render
from udfs.report.thumbnails import MAX_PICTURES, Gallery

from ..core import job_runner
from ..core.errors import UsageError
from ..core.image_path_settings import ImagePathConfig
from ..tables import delta, runs
from ..tables.pairs import keyed_by
from ..tables.scores import KEYS
from . import example_pictures
from . import figures as report_figures

_SELECTION_COLUMNS = (*KEYS, "scorer", "status", "keep", "first_failed_rule", "reason", "rules")


class ReportConfig(ImagePathConfig):
    """Show what a filter did: scores, funnel, thresholds, correlations and pictures in one file."""

    selection: str = Field(description="selection table, as filter writes it")
    output: str = Field(description="HTML file to write")
    scores: str | None = Field(None, description="scores table: adds clip_score and the run")
    pairs: str | None = Field(None, description="pairs table: adds pictures and captions")
    title: str = Field("Filter report", description="heading of the page")
    pictures: int = Field(
        6, ge=1, le=MAX_PICTURES // 10, description="pictures in each row of pictures"
    )
    uid_column: str = Field("uid", description="column of --pairs with the pair's key")
    image_column: str = Field("image", description="column of --pairs with the image's bytes")
    caption_column: str = Field("caption", description="column of --pairs with the caption")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.limit is not None:
            raise UsageError("report takes no --limit: it is about all rows of the selection")
        if delta.is_uri(self.output):
            raise UsageError("--output must be a local file")
        return self


def run(spark: SparkSession, config: ReportConfig) -> dict[str, Any]:
    """Compute the figures, choose the pictures and write the page."""
    _check_libraries()
    path = Path(delta.path_of(config.output))
    _check_replaceable(path)
    version = delta.version(spark, config.selection)  # several passes must see the same rows
    selection = delta.read(spark, config.selection, version)
    _require_columns(config.selection, selection)
    keyed = _pairs(spark, config)
    notes: list[str] = []
    if config.scores:
        selection, notes = _with_scores(spark, selection, config.scores)
    signals = report_figures.signals_of(selection.schema)

    job_runner.say(f"counting {config.selection} by {', '.join(signals) or 'status'} ...")
    counted, boundaries = report_figures.collect(selection, signals)
    galleries: list[Gallery] = []
    if keyed is not None and counted["scored"]:
        job_runner.say("choosing pictures ...")
        galleries = example_pictures.collect(
            selection, keyed, config.roots(), boundaries, signals, config.pictures
        )
        if omitted := len(boundaries) - sum(gallery.kind == "line" for gallery in galleries):
            notes.append(f"There are too many rules: no pictures for the last {omitted:,} of them.")
    gallery_uids = [
        {
            "title": gallery.title,
            "signal": gallery.signal,
            "strips": {s.title: [p.uid for p in s.pictures] for s in gallery.strips},
        }
        for gallery in galleries
    ]
    figures = {
        "title": config.title,
        **counted,
        "pictures": gallery_uids,
        "notes": notes,
        "run": _run_details(spark, config, version, selection),
    }
    pictures = sum(len(strip.pictures) for gallery in galleries for strip in gallery.strips)
    summary = {
        "rows": counted["rows"],
        "kept": counted["kept"],
        "signals": signals,
        "pictures": pictures,
    }
    if config.dry_run:
        job_runner.say(f"would write {path}: {counted['kept']:,} of {counted['rows']:,} rows kept")
        return summary | {"dry_run": True}
    page = render(figures, galleries).encode("utf-8", errors="replace")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as part:
        part.write_bytes(page)
    job_runner.say(f"written: {path} ({len(page) / 1e6:.1f} MB, {pictures} pictures)")
    return summary | {"output": str(path), "bytes": len(page)}


def _check_libraries() -> None:
    missing = [name for name in ("jinja2", "vl_convert") if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"a report needs {' and '.join(missing)}: install the extra `report`"
            " (pip install 'mlm-filter[report]')"
        )


def _check_replaceable(path: Path) -> None:
    """Raise UsageError if this would overwrite something other than a report."""
    if path.is_dir():
        raise UsageError(
            f"--output {path} is a folder; name a file, such as {path / 'report.html'}"
        )
    if path.exists():
        with path.open("rb") as file:
            if MARK.encode() not in file.read(200):
                raise UsageError(f"--output {path} exists and is not a report: name another file")


def _require_columns(ref: str, selection: DataFrame) -> None:
    missing = [name for name in _SELECTION_COLUMNS if name not in selection.columns]
    if missing:
        raise UsageError(
            f"{ref} is not a selection table: it has no column {', '.join(missing)}"
            f" among {', '.join(selection.columns)}"
        )


def _pairs(spark: SparkSession, config: ReportConfig) -> DataFrame | None:
    """The pairs table with keys, if --pairs is given. Raises UsageError for a missing column."""
    if config.pairs is None:
        return None
    pairs = delta.read(spark, config.pairs, delta.version(spark, config.pairs))
    return keyed_by(pairs, config)


def _with_scores(
    spark: SparkSession, selection: DataFrame, ref: str
) -> tuple[DataFrame, list[str]]:
    """The selection with the `clip_score` of the scores table, if it has any; and notes."""
    scores = delta.read(spark, ref, delta.version(spark, ref))
    missing = [name for name in (*KEYS, "scorer", "status") if name not in scores.columns]
    if missing:
        raise UsageError(f"{ref} is not a scores table: it has no column {', '.join(missing)}")
    scorers = selection.select("scorer").distinct()
    own = scores.join(F.broadcast(scorers), on=_same_scorer(scores, scorers), how="left_semi")
    cosines = F.count("clip_score") if "clip_score" in scores.columns else F.lit(0)
    ((own_count, cosine_count),) = own.agg(F.count("*"), cosines).collect()
    rows = selection.count()
    notes = []
    if own_count != rows:
        notes.append(
            f"The scores table has {own_count:,} rows of this scorer, the selection {rows:,}."
            " To include them all, run filter again."
        )
    if not cosine_count or "clip_score" in selection.columns:
        return selection, notes
    key = (*KEYS, "scorer")
    right = own.select(*(F.col(name).alias(f"__{name}") for name in key), "clip_score")
    same_key = [selection[name].eqNullSafe(right[f"__{name}"]) for name in key]
    joined = selection.join(right, on=same_key, how="left")
    return joined.drop(*(f"__{name}" for name in key)), notes


def _same_scorer(scores: DataFrame, scorers: DataFrame) -> Any:
    return scores["scorer"].eqNullSafe(scorers["scorer"])


def _run_details(
    spark: SparkSession, config: ReportConfig, version: int, selection: DataFrame
) -> list[dict[str, str]]:
    """How the report was made, as names and values for the page."""
    details = {"selection": f"{config.selection}, version {version}"}
    details |= {"scores": config.scores or "", "pairs": config.pairs or ""}
    scorer = selection.select("scorer").where("scorer IS NOT NULL").first()
    details["scorer"] = scorer[0] if scorer else ""
    if config.scores and delta.exists(spark, runs.ref_beside(config.scores)):
        details |= _last_scoring(spark, runs.ref_beside(config.scores))
    details["versions"] = ", ".join(f"{name} {v}" for name, v in runs.versions().items())
    details["made"] = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    return [{"name": name, "value": str(value)} for name, value in details.items() if value]


def _last_scoring(spark: SparkSession, ref: str) -> dict[str, str]:
    """Model, time and speed of the latest run of the score job that scored any rows."""
    scoring = delta.read(spark, ref).where("job = 'score' AND status = 'ok' AND rows > 0")
    last = scoring.orderBy(F.desc("started_at")).first()
    if last is None:
        return {}
    parameters = json.loads(last["parameters"] or "{}")
    started = f"{last['started_at']:%Y-%m-%d %H:%M}"
    rate = f", {last['rows_per_second']:.1f} rows/s" if last["rows_per_second"] else ""
    return {
        "model": str(parameters.get("model", "")),
        "last scoring": f"{started}, {last['rows']:,} rows in {last['seconds']:,.0f} s{rate}",
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; returns its exit code."""
    return job_runner.main("report", ReportConfig, run, argv)
