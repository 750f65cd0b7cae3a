"""Write what a selection keeps in the form that training code takes as it is.

    mlm-filter export --selection SEL --format uids --output uids.npy
    mlm-filter export --selection SEL --pairs P --format webdataset --output FOLDER
    mlm-filter export --scores S --pairs P --format upstream-parquet --output FOLDER

Files are written whole or not at all, by a temporary name; the same tables give the same files,
byte for byte. `uids` are written by the driver, shards by the executors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import Field, model_validator
from pyspark.sql import DataFrame, SparkSession

from udfs.core.metrics import METRICS
from udfs.outputs.shards import APART, Layout

from ..core import job_runner
from ..core.errors import UsageError
from ..core.settings import JobConfig
from ..tables import delta
from ..tables.filtered_pairs import write_filtered
from ..tables.pairs import PAIRS_KEYS, with_keys
from ..tables.selection import check_selection
from . import selected_rows, upstream_scores
from . import shards as export_shards
from . import uids as export_uids
from .storage_paths import on_disk

_NEEDS = {
    "uids": ("selection",),
    "webdataset": ("selection", "pairs"),
    "parquet": ("selection", "pairs"),
    "delta": ("selection", "pairs"),
    "upstream-parquet": ("scores", "pairs"),
}


class ExportConfig(JobConfig):
    """Write what a selection keeps in the form that training code takes as it is."""

    format: Literal["uids", "webdataset", "parquet", "delta", "upstream-parquet"] = Field(
        description="DataComp's uid file (.npy); tars with .txt and .json; a Parquet folder for "
        "Hugging Face datasets; a Delta table; the paper's score files, one a tar and metric"
    )
    output: str = Field(description="file (uids), folder, or table (delta) to write")
    selection: str | None = Field(None, description="selection table (not for upstream-parquet)")
    pairs: str | None = Field(None, description="pairs table; with uids: only pairs still in it")
    scores: str | None = Field(None, description="scores table, for upstream-parquet")
    scorer: str | None = Field(None, description="whose scores, where that table has several")
    shard_rows: int = Field(10_000, ge=1, le=10_000_000, description="samples a shard")
    uid_column: str = Field("uid", description="column of --pairs with the pair's key")
    image_column: str = Field("image", description="column of --pairs with the image's bytes")
    image_path_column: str | None = Field(
        None, description="column of --pairs with the image's path, instead of its bytes"
    )
    caption_column: str = Field("caption", description="column of --pairs with the caption")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.limit is not None:
            raise UsageError(
                "export takes no --limit: keep fewer rows by a rule such as `top 1000`"
            )
        needed = _NEEDS[self.format]
        for name in needed:
            if getattr(self, name) is None:
                raise UsageError(f"--format {self.format} needs --{name}")
        if self.format == "upstream-parquet" and self.selection is not None:
            raise UsageError("--format upstream-parquet is of all scores: it takes no --selection")
        if self.scores is not None and "scores" not in needed:
            raise UsageError(f"--scores is for upstream-parquet, not for {self.format}")
        return self


def run(spark: SparkSession, config: ExportConfig) -> dict[str, Any]:
    """Write the export; return counts and the versions of the tables that it is of."""
    told: dict[str, Any] = {"format": config.format, "output": config.output}
    if config.dry_run:
        told["dry_run"] = True
    if config.format == "upstream-parquet":
        return told | _scores(spark, config)
    assert config.selection
    version = delta.version(spark, config.selection)
    selection = delta.read(spark, config.selection, version)
    check_selection(config.selection, selection)
    told |= {"selection": config.selection, "selection_version": version}
    if config.format == "uids":
        return told | _uids(spark, config, selection)
    if config.format == "delta":
        return told | _delta(spark, config, selection)
    return told | _shards(spark, config, selection, version)


def _uids(spark: SparkSession, config: ExportConfig, selection: DataFrame) -> dict[str, Any]:
    path = on_disk(config.output, "--output")
    export_uids.check_place(path)
    uids = selected_rows.kept_uids(selection)
    if config.pairs:
        keyed = _keyed(spark, config)[0]
        uids = selected_rows.without_lost(selected_rows.kept_rows(selection), keyed).select(
            "uid", "repetitions"
        )
    rows, repetitions = export_uids.counted(uids)
    counts: dict[str, Any] = {"kept": rows, "repetitions": repetitions}
    if config.dry_run:
        job_runner.say(f"would write {repetitions:,} uids to {path} (dry run: nothing is written)")
        return counts
    counts |= export_uids.write(uids, rows, path)
    job_runner.say(f"{path}: {counts['uids']:,} uids of {rows:,} kept rows")
    return counts


def _shards(
    spark: SparkSession, config: ExportConfig, selection: DataFrame, version: int
) -> dict[str, Any]:
    folder, kind = on_disk(config.output, "--output"), export_shards.KINDS[config.format]
    export_shards.check_place(folder)
    keyed, pairs_version = _keyed(spark, config)
    rows = selected_rows.kept_rows(selection)
    there = selected_rows.without_lost(rows, keyed)
    samples, total = export_shards.placed(there, config.shard_rows)
    if not total:
        raise UsageError(f"{config.selection} keeps no row of {config.pairs}: nothing to export")
    counts: dict[str, Any] = {"pairs": config.pairs, "pairs_version": pairs_version}
    counts |= {"samples": total, "kept_without_pair": rows.count() - there.count()}
    number = -(-total // config.shard_rows)
    if config.dry_run:
        job_runner.say(f"would write {total:,} samples in {number:,} shards to {folder}")
        return counts | {"shards": number}
    columns = config.model_dump(include={"uid_column", "image_path_column", "caption_column"})
    parts = {
        "selection": [table_id(spark, str(config.selection)), version],
        "pairs": [table_id(spark, str(config.pairs)), pairs_version],
        "columns": columns | {"image": config.image_column},
        "kind": [config.format, config.shard_rows],
    }
    layout = Layout(str(folder), number, config.shard_rows, export_shards.plan_of(parts))
    about = {"format": config.format, "plan": layout.plan, **counts}
    export_shards.manifest(folder, about, (), complete=False)
    image = "image_path" if config.image_path_column else "image"
    whole = export_shards.rows_of(samples, keyed, total, image)
    shards = export_shards.write(whole, total, layout, kind)
    left_out = sum(shard.left_out for shard in shards)
    counts |= {"shards": number, "rows": total - left_out, "left_out": left_out}
    counts["bytes"] = sum(shard.bytes for shard in shards)
    for reason in [why for shard in shards for why in shard.left_out_such_as][:3]:
        job_runner.say(f"left out: {reason}")
    if config.format == "parquet":
        fields = [name for name in whole.columns if name not in APART]
        export_shards.write_card(folder, fields, counts["rows"])
    counts["stale_files_removed"] = export_shards.remove_others(layout, kind, shards)
    export_shards.manifest(folder, about | counts, shards, complete=True)
    job_runner.say(f"{folder}: {counts['rows']:,} samples in {number:,} shards")
    return counts


def _delta(spark: SparkSession, config: ExportConfig, selection: DataFrame) -> dict[str, Any]:
    refs = (config.selection, config.pairs)
    if any(ref and delta.same(config.output, ref) for ref in refs):
        raise UsageError(f"--output {config.output} is read here: name another table")
    there = delta.exists(spark, config.output)
    if there and not {*PAIRS_KEYS[1:], *METRICS} <= set(delta.read(spark, config.output).columns):
        raise UsageError(f"{config.output} is a table of another kind, which would be replaced")
    keyed, version = _keyed(spark, config)
    assert config.pairs
    counts = {"kept": selection.where("keep").count(), "pairs_version": version}
    if config.dry_run:
        job_runner.say(f"would write the pairs of {counts['kept']:,} kept rows to {config.output}")
        return counts
    own = delta.read(spark, config.pairs, version).columns
    rows = write_filtered(keyed, own, selection, counts["kept"], config.output, True)
    job_runner.say(f"{config.output}: {rows:,} pairs of {counts['kept']:,} kept rows")
    return counts | {"rows": rows}


def _scores(spark: SparkSession, config: ExportConfig) -> dict[str, Any]:
    assert config.scores
    folder = on_disk(config.output, "--output")
    version = delta.version(spark, config.scores)
    scores = delta.read(spark, config.scores, version)
    keyed, pairs_version = _keyed(spark, config)
    if "source_path" not in keyed.columns or "itm_mode" not in scores.columns:
        missing = "source_path" if "source_path" not in keyed.columns else "itm_mode"
        raise UsageError(f"--format upstream-parquet: there is no column {missing}")
    scorer = upstream_scores.choose_scorer(scores, config.scores, config.scorer)
    rows = upstream_scores.samples(keyed)
    stems, inside = upstream_scores.tars_of(rows, folder)
    told = {"scores": config.scores, "scores_version": version, "scorer": scorer}
    told |= {"pairs": config.pairs, "pairs_version": pairs_version}
    if config.dry_run:
        job_runner.say(
            f"would write scores of {inside:,} samples of {len(stems):,} tars to {folder}"
        )
        return told | {"rows": inside, "tars": len(stems)}
    counts = upstream_scores.write(rows, upstream_scores.answers(scores, scorer), stems, folder)
    job_runner.say(f"{folder}: {counts['files']:,} files for {counts['tars']:,} tars")
    return told | counts


def _keyed(spark: SparkSession, config: ExportConfig) -> tuple[DataFrame, int]:
    assert config.pairs
    version = delta.version(spark, config.pairs)
    pairs = with_keys(
        delta.read(spark, config.pairs, version),
        config.uid_column,
        config.image_column,
        config.image_path_column,
        config.caption_column,
    )
    return pairs, version


def table_id(spark: SparkSession, ref: str) -> str:
    """The id that Delta gave a table when it was made: a path can come to hold another one."""
    row = spark.sql(f"DESCRIBE DETAIL {delta.sql_name(ref)}").select("id").first()
    return str(row[0]) if row else ref


def main(argv: Sequence[str] | None = None) -> int:
    """Run as a program; returns the exit code."""
    return job_runner.main("export", ExportConfig, run, argv)
