"""Make a pairs table from images and captions.

    mlm-filter ingest --source parquet --input images.parquet --output pairs

The source is a folder of images with a table of captions, Parquet or Delta with image bytes,
WebDataset tars, or the sample pairs. No row is dropped: what cannot be read becomes a row without
an image, and the score job gives it a status.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from ..core import job_runner
from ..core.errors import UsageError
from ..core.image_path_settings import roots_of
from ..tables import delta, uid_origin
from ..tables.concurrent_append import ConcurrentAppender
from ..tables.pairs import PAIRS, PAIRS_KEYS, uid_text
from . import folder_source, sample_source, table_sources, tar_source
from .captions.caption_files import TextFormat
from .captions.caption_lists import check_caption, one_caption_per_row
from .left_out import LeftOut, say_left_out
from .settings import IngestConfig
from .source_columns import Columns, Source


def open_source(spark: SparkSession, config: IngestConfig) -> Source:
    """The rows of the source that `config` names, as they are."""
    columns = Columns(
        config.image_column, config.caption_column, config.uid_column, config.path_column
    )
    location = config.input or ""
    roots = roots_of(config.image_root)
    if config.source == "folder":
        form = TextFormat(config.separator, config.quote, config.header, config.encoding)
        captions, endings = config.captions or "", (config.image_ending, config.caption_ending)
        return folder_source.folder(spark, location, captions, columns, form, *endings, roots)
    if config.source == "parquet":
        return table_sources.parquet(spark, location, columns, roots)
    if config.source == "delta":
        return table_sources.delta(spark, location, columns, roots)
    if config.source == "webdataset":
        return tar_source.webdataset(spark, location, tar_source.naming_of(config))
    return sample_source.samples(spark)


def to_pairs(
    frame: DataFrame, fill_uid: bool = False, captions: Literal["all", "first"] = "all"
) -> DataFrame:
    """The columns of PAIRS from `image`, `caption`, `source_path` and maybe `uid`; then all others.

    The hashes are over bytes; a missing image or caption has the hash of no bytes. If there is no
    column `uid`, it is the first 32 digits of a hash over image hash, caption hash and source path;
    with `fill_uid`, null uids are filled in the same way. Text is never decoded: Parquet's strings
    may hold anything. Lists of captions become rows, `captions` says how.
    """
    if "uid" in frame.columns:
        frame = frame.withColumn("uid", uid_text(frame, "uid", "--uid-column", "the source"))
    frame = one_caption_per_row(frame, captions)
    for name in ("image", "caption"):
        column = F.col(name) if name == "image" else F.col(name).cast("string")
        content = F.coalesce(column.cast("binary"), F.lit(b""))
        frame = frame.withColumn(name, column).withColumn(f"{name}_sha", F.sha2(content, 256))
    frame = frame.withColumn("source_path", F.col("source_path").cast("string"))
    path = F.coalesce("source_path", F.lit(""))
    generated = F.substring(F.sha2(F.concat("image_sha", "caption_sha", path), 256), 1, 32)
    if "uid" not in frame.columns:
        frame = frame.withColumn("uid", generated)
    elif fill_uid:
        frame = frame.withColumn("uid", F.coalesce("uid", generated))
    extra = [name for name in frame.columns if name not in PAIRS.names]
    ordered = frame.select(*PAIRS.names, *(delta.quoted(name) for name in extra))
    return delta.commented(delta.storable(ordered), PAIRS)


def new_rows(pairs: DataFrame, existing: DataFrame) -> DataFrame:
    """The rows of `pairs` that `existing` does not have, by uid, image and caption together."""
    keys = existing.select(*(F.col(key).alias(f"_{key}") for key in PAIRS_KEYS))
    same = [F.col(key).eqNullSafe(F.col(f"_{key}")) for key in PAIRS_KEYS]
    return pairs.join(keys, same, "left_anti")


def summarize(pairs: DataFrame) -> dict[str, int]:
    """Row counts over a pairs table, without reading an image."""
    empty_hash = F.sha2(F.lit(b""), 256)
    has_read_errors = "read_error" in pairs.columns
    # As `udfs.inputs.captions.clean`: what shows nothing is no caption.
    blank = F.coalesce(F.col("caption").rlike(r"^[\s\p{Z}\p{Cf}\p{Cc}]*$"), F.lit(True))
    row = pairs.agg(
        F.count("*").alias("rows"),
        F.count_if(F.col("image_sha") == empty_hash).alias("rows_without_image"),
        F.count_if(blank).alias("rows_without_caption"),
        F.count_if(F.col("uid").isNull()).alias("rows_without_uid"),
        (F.count("uid") - F.count_distinct("uid")).alias("duplicate_uids"),
        (F.count("read_error") if has_read_errors else F.lit(0)).alias("read_errors"),
    ).first()
    assert row is not None
    return {name: int(value) for name, value in row.asDict().items()}


def run(spark: SparkSession, config: IngestConfig) -> dict[str, Any]:
    """Write the pairs table; return its counts, its version and the notes of the source."""
    exists = _check_output(spark, config)
    source = open_source(spark, config)
    try:
        return _write(spark, config, source, exists)
    finally:
        for frame in source.cached:
            frame.unpersist()


def _write(
    spark: SparkSession, config: IngestConfig, source: Source, exists: bool
) -> dict[str, Any]:
    for name, value in source.notes.items():
        job_runner.say(f"{name.replace('_', ' ')}: {value}")
    where = config.captions or config.input or config.source
    check_caption(source.frame.schema["caption"].dataType, config.caption_column, where)
    left_out = LeftOut(source, config.captions_per_image == "first")
    pairs = to_pairs(left_out.frame, source.fill_uid, config.captions_per_image)
    if config.limit is not None:
        pairs = pairs.limit(config.limit)
    if config.dry_run:
        return _dry_run(pairs, source, config)
    rows_before = 0
    if exists and config.mode == "append":
        rows_before = _append(spark, pairs, config.output)
    else:
        delta.overwrite(pairs, config.output, skipping=PAIRS_KEYS, new=not exists)
    origin = left_out.uid_origin()
    before = uid_origin.of(spark, config.output) if rows_before else origin
    uid_origin.record(spark, config.output, uid_origin.combined(before, origin))
    counts = summarize(delta.read(spark, config.output))
    version = delta.version(spark, config.output)
    added = counts["rows"] - rows_before
    job_runner.say(f"{added:,} rows added to {config.output}, version {version}")
    if origin != "given":
        job_runner.say(
            "uids: made up for rows without one (a hash of image, caption and path);"
            " --uid-column names the source's own"
        )
    reasons = left_out.counts()
    say_left_out(reasons)
    if config.rejects is not None:
        left_out.write(config.rejects)
    summary = {"rows_added": added} | counts | source.notes
    summary["uids"] = origin
    summary["left_out"] = {reason: count for reason, (count, _) in reasons.items()}
    for name in ("rows_without_image", "rows_without_caption", "duplicate_uids", "read_errors"):
        if counts[name]:
            job_runner.say(
                f"{name.replace('_', ' ')}: {counts[name]} "
                "(they stay in the table; the score job gives each a status)"
            )
    return {"output": config.output, "version": version} | summary


def _append(spark: SparkSession, pairs: DataFrame, output: str) -> int:
    """Add the rows that the table does not have, also beside other runs that add them; return how
    many it had."""
    rows_before = 0
    version = delta.version(spark, output)
    appender = ConcurrentAppender(spark, output, "ingest", job_runner.new_run_id(), version)

    def make() -> tuple[DataFrame, dict[str, Any]]:
        nonlocal rows_before
        existing = delta.read(spark, output, appender.version)
        rows_before = existing.count()
        return new_rows(pairs, existing), {}

    appender.append(make, new_columns=True)
    return rows_before


def _check_output(spark: SparkSession, config: IngestConfig) -> bool:
    """Whether the output exists. Raises UsageError if it must not be written."""
    output = config.output
    if config.input and config.source == "delta" and delta.same(config.input, output):
        raise UsageError(f"--output {output} is the input")
    if delta.exists(spark, output):
        if config.mode == "error" and not config.dry_run:
            raise UsageError(
                f"--output {output} exists already (version {delta.version(spark, output)}); "
                "--mode append adds what it does not have, --mode overwrite replaces it"
            )
        return True
    path = delta.path_of(output)
    if not delta.is_name(output) and os.path.exists(path) and not _is_free(path):
        raise UsageError(f"--output {output} exists and is not a Delta table; choose another")
    return False


def _is_free(path: str) -> bool:
    """Whether a folder is empty, or holds only what a first write that failed has left: Delta makes
    the log's folder before the data, and the first entry in it last."""
    log = os.path.join(path, "_delta_log")
    if os.path.isdir(log):
        return not any(name.endswith((".json", ".parquet")) for name in os.listdir(log))
    return os.path.isdir(path) and not os.listdir(path)


def _dry_run(pairs: DataFrame, source: Source, config: IngestConfig) -> dict[str, Any]:
    job_runner.say(f"would write to {config.output} (dry run: nothing is written):")
    for column in pairs.schema:
        job_runner.say(f"  {column.name} {column.dataType.simpleString()}")
    size = F.concat(F.lit("<"), F.octet_length("image").cast("string"), F.lit(" bytes>"))
    for row in pairs.withColumn("image", size).limit(3).collect():
        job_runner.say("example:")
        for name, value in row.asDict().items():
            text = str(value)
            job_runner.say(f"  {name}: {text if len(text) <= 100 else text[:97] + '...'}")
    rows = source.rows
    if rows is None and config.source != "webdataset":  # whose rows are known only after reading it
        rows = source.frame.count()
    if rows is not None and config.limit is not None:
        rows = min(rows, config.limit)
    return {"dry_run": True, "output": config.output, "rows_estimated": rows} | source.notes


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; return its exit code."""
    return job_runner.main("ingest", IngestConfig, run, argv)
