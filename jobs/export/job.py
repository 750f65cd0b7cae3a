"""Write the pairs that a selection keeps in the formats that training code reads.

    mlm-filter export --selection SEL --format uids --output uids.npy
    mlm-filter export --selection SEL --pairs P --format webdataset --output FOLDER
    mlm-filter export --scores S --pairs P --format upstream-parquet --output FOLDER

Each file is written under a temporary name and then renamed, so there are no partial files. The
same tables give the same files, byte for byte. The driver writes `uids`, executors write shards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from udfs.core.metrics import METRICS
from udfs.outputs.shards import SHARD_COLUMNS, Layout

from ..core import job_runner
from ..core.errors import UsageError
from ..tables import delta, export_manifest, uid_origin
from ..tables.export_manifest import Manifest
from ..tables.filtered_pairs import score_columns, write_filtered
from ..tables.pairs import PAIRS_KEYS, keyed_by
from ..tables.selection import check_selection
from . import column_report, dataset_card, selected_rows, upstream_scores
from . import shards as export_shards
from . import uids as export_uids
from .settings import ExportConfig
from .storage_paths import local_path


def run(spark: SparkSession, config: ExportConfig) -> dict[str, Any]:
    """Write the export; return counts and the versions of the tables that were read."""
    summary: dict[str, Any] = {"format": config.format, "output": config.output}
    if config.dry_run:
        summary["dry_run"] = True
    if config.format == "upstream-parquet":
        return summary | _scores(spark, config)
    assert config.selection
    version = delta.version(spark, config.selection)
    selection = delta.read(spark, config.selection, version)
    check_selection(config.selection, selection)
    summary |= {"selection": config.selection, "selection_version": version}
    if config.format == "uids":
        return summary | _uids(spark, config, selection)
    if config.format == "delta":
        return summary | _delta(spark, config, selection)
    return summary | _shards(spark, config, selection, version)


def _uids(spark: SparkSession, config: ExportConfig, selection: DataFrame) -> dict[str, Any]:
    path = local_path(config.output, "--output")
    export_uids.check_output(path)
    export_uids.check_origin(spark, str(config.selection), config.made_up_uids)
    uids = selected_rows.kept_uids(selection)
    if config.pairs:
        keyed = _pairs_with_keys(spark, config)[0]
        uids = selected_rows.with_existing_pair(selected_rows.kept_rows(selection), keyed).select(
            "uid", "repetitions"
        )
    uids = export_uids.of_source(uids)
    rows, repetitions = export_uids.count_uids(uids)
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
    folder = local_path(config.output, "--output")
    shard_format = export_shards.FORMATS[config.format]
    export_shards.check_output(folder)
    keyed, pairs_version = _pairs_with_keys(spark, config)
    keyed, changed = selected_rows.writable(keyed)
    selection, changed_signals = selected_rows.writable(selection)
    changed = changed_signals | changed
    rows = selected_rows.kept_rows(selection)
    existing = selected_rows.with_existing_pair(rows, keyed)
    samples, total = export_shards.assign_shards(existing, config.shard_rows)
    if not total:
        raise UsageError(f"{config.selection} keeps no row of {config.pairs}: nothing to export")
    counts: dict[str, Any] = {"pairs": config.pairs, "pairs_version": pairs_version}
    counts |= {"samples": total, "kept_without_pair": rows.count() - existing.count()}
    own = delta.read(spark, str(config.pairs), pairs_version).columns
    fields, omitted = export_shards.fields_of(samples, keyed, column_report.reserved(config, own))
    image = "image_path" if config.image_path_column else "image"
    sample_rows = export_shards.rows_of(samples, keyed, fields, total, image)
    if config.format == "parquet":
        changed |= column_report.maps_as_lists(sample_rows.schema)
    elif "key" in fields:
        omitted["key"] = "a sample's key is its place in the tars"
    changed = {name: change for name, change in changed.items() if name in fields}
    counts |= column_report.report(omitted, changed)
    shard_count = -(-total // config.shard_rows)
    if config.dry_run:
        job_runner.say(f"would write {total:,} samples in {shard_count:,} shards to {folder}")
        return counts | {"shards": shard_count}
    encoding = config.image_encoding()
    columns = config.model_dump(include={"uid_column", "image_path_column", "caption_column"})
    plan_inputs = {
        "selection": [delta.table_id(spark, str(config.selection)), version],
        "pairs": [delta.table_id(spark, str(config.pairs)), pairs_version],
        "columns": columns | {"image": config.image_column},
        "kind": [config.format, config.shard_rows],
        "encoding": encoding and vars(encoding),
    }
    layout = Layout(str(folder), shard_count, config.shard_rows, export_shards.plan_of(plan_inputs))
    header = {"format": config.format, "plan": layout.plan, **counts}
    written = sample_rows.drop(*SHARD_COLUMNS).schema
    origin = uid_origin.of_column(spark, str(config.pairs), config.uid_column)
    content = Manifest(written, origin)
    export_manifest.write(folder, header, content, (), complete=False)
    shards = export_shards.write(sample_rows, total, layout, shard_format, encoding, config.roots())
    left_out = sum(shard.left_out for shard in shards)
    counts |= {"shards": shard_count, "rows": total - left_out, "left_out": left_out}
    counts["bytes"] = sum(shard.bytes for shard in shards)
    for reason in [reason for shard in shards for reason in shard.left_out_such_as][:3]:
        job_runner.say(f"left out: {reason}")
    counts["image_extensions"] = extensions = export_shards.extensions(shards)
    if config.format == "parquet":
        dataset_card.write_card(folder, "data/train-*.parquet", written, counts["rows"])
    else:
        export_shards.say_skipped_images(extensions)
        features = dataset_card.tar_features(written, extensions)
        dataset_card.write_card(folder, "*.tar", written, counts["rows"], features)
    counts["stale_files_removed"] = export_shards.remove_others(layout, shard_format, shards)
    export_manifest.write(folder, header | counts, content, shards, complete=True)
    job_runner.say(f"{folder}: {counts['rows']:,} samples in {shard_count:,} shards")
    return counts


def _delta(spark: SparkSession, config: ExportConfig, selection: DataFrame) -> dict[str, Any]:
    refs = (config.selection, config.pairs)
    if any(ref and delta.same(config.output, ref) for ref in refs):
        raise UsageError(f"--output {config.output} is read by this job: name another table")
    exists = delta.exists(spark, config.output)
    if exists and not {*PAIRS_KEYS[1:], *METRICS} <= set(delta.read(spark, config.output).columns):
        raise UsageError(f"{config.output} is a table of another kind, which would be replaced")
    keyed, version = _pairs_with_keys(spark, config)
    assert config.pairs
    counts = {"kept": selection.where("keep").count(), "pairs_version": version}
    pairs = delta.read(spark, config.pairs, version)
    columns = pairs.columns
    replaced = {name.lower() for name in score_columns(selection, with_repetitions=True)}
    omitted = {name: column_report.REPLACED for name in columns if name.lower() in replaced}
    kept = pairs.drop(*omitted)
    changed = column_report.other_types(kept.schema, delta.storable(kept).schema)
    omitted |= column_report.overshadowed(config, columns)
    report = column_report.report(omitted, changed)
    if config.dry_run:
        job_runner.say(f"would write the pairs of {counts['kept']:,} kept rows to {config.output}")
        return counts | report
    rows = write_filtered(keyed, columns, selection, counts["kept"], config.output, True)
    origin = uid_origin.of_column(spark, config.pairs, config.uid_column)
    uid_origin.record(spark, config.output, origin)
    job_runner.say(f"{config.output}: {rows:,} pairs of {counts['kept']:,} kept rows")
    return counts | report | {"rows": rows}


def _scores(spark: SparkSession, config: ExportConfig) -> dict[str, Any]:
    assert config.scores
    folder = local_path(config.output, "--output")
    version = delta.version(spark, config.scores)
    scores = delta.read(spark, config.scores, version)
    keyed, pairs_version = _pairs_with_keys(spark, config)
    if "source_path" not in keyed.columns or "itm_mode" not in scores.columns:
        missing = "source_path" if "source_path" not in keyed.columns else "itm_mode"
        raise UsageError(f"--format upstream-parquet needs a column {missing}: there is none")
    scorer = upstream_scores.choose_scorer(scores, config.scores, config.scorer)
    rows = upstream_scores.samples(keyed)
    stems, sample_count = upstream_scores.tars_of(rows, folder)
    summary = {"scores": config.scores, "scores_version": version, "scorer": scorer}
    summary |= {"pairs": config.pairs, "pairs_version": pairs_version}
    if config.dry_run:
        job_runner.say(
            f"would write scores of {sample_count:,} samples of {len(stems):,} tars to {folder}"
        )
        return summary | {"rows": sample_count, "tars": len(stems)}
    counts = upstream_scores.write(
        rows, upstream_scores.likeliest_numbers(scores, scorer), stems, folder
    )
    job_runner.say(f"{folder}: {counts['files']:,} files for {counts['tars']:,} tars")
    return summary | counts


def _pairs_with_keys(spark: SparkSession, config: ExportConfig) -> tuple[DataFrame, int]:
    assert config.pairs
    version = delta.version(spark, config.pairs)
    return keyed_by(delta.read(spark, config.pairs, version), config), version


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; return its exit code."""
    return job_runner.main("export", ExportConfig, run, argv)
