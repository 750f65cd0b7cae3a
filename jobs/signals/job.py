"""Compute cheap signals of every pair, for use in rules: pairs -> signals.

    mlm-filter signals --pairs P --output S
    mlm-filter signals --pairs P --output S --signal size --signal language --limit 1000

One row for each row of the pairs table: image size, language and length of the caption, exact and
near duplicates; text in the image only on request, as that is slow. A row whose image cannot be
read has the signals of its caption, a status and a reason. A rerun on the same pairs replaces the
table with the same content.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any, Literal, Self

from pydantic import Field, model_validator
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T
from pyspark.sql.pandas.types import from_arrow_schema

from udfs.inputs.image_roots import NO_ROOTS
from udfs.signals import rows as signal_rows
from udfs.signals.perceptual import MAX_DISTANCE
from udfs.signals.rows import CAPTION_SIGNALS, IMAGE_SIGNALS, PAIR_SIGNALS, SignalOptions
from udfs.signals.shingles import MIN_SIMILARITY

from ..core import job_runner
from ..core.errors import UsageError
from ..core.image_path_settings import ImagePathConfig
from ..core.progress import duration
from ..core.spark_progress import task_progress
from ..tables import delta
from ..tables import signals as signals_table
from ..tables.pairs import PAIRS_KEYS, keyed_by
from . import near_duplicates

Signal = Literal[
    "size",
    "language",
    "length",
    "duplicates",
    "near_images",
    "near_captions",
    "text_in_image",
]
CHEAP: tuple[Signal, ...] = (
    "size",
    "language",
    "length",
    "duplicates",
    "near_images",
    "near_captions",
)

_LIBRARIES = {  # signal -> the library that it needs, and the extra that installs it
    "language": ("py3langid", "signals"),
    "near_images": ("imagehash", "signals"),
    "near_captions": ("datasketch", "signals"),
    "text_in_image": ("rapidocr", "ocr"),
}


class SignalsConfig(ImagePathConfig):
    """Compute cheap signals of pairs, for rules: size, language, length, duplicates, text."""

    pairs: str = Field(description="pairs table: a path or catalog.schema.table")
    output: str = Field(description="signals table to write; replaced if it exists")
    signal: list[Signal] = Field(
        default=list(CHEAP),
        min_length=1,
        description="size, language, length, duplicates (exact), near_images, near_captions,"
        " text_in_image (slow); repeat for more",
    )
    image_distance: int = Field(
        default=4,
        ge=1,
        le=MAX_DISTANCE,
        description="near images differ in at most this many bits of 64",
    )
    caption_similarity: float = Field(
        default=0.8,
        ge=MIN_SIMILARITY,
        le=1,
        description="least Jaccard similarity of near captions, over runs of 5 characters",
    )
    uid_column: str = Field(default="uid", description="column with the pair's key")
    image_column: str = Field(default="image", description="column with the image's bytes")
    caption_column: str = Field(default="caption", description="column with the caption")

    def reads_images(self) -> bool:
        """Whether a signal needs the image, and not only its path."""
        return not set(IMAGE_SIGNALS).isdisjoint(self.signal)

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        if delta.same(self.pairs, self.output):
            raise UsageError(f"--output {self.output} is the pairs table")
        return self

    def wanted(self) -> SignalOptions:
        """What executors have to compute for each pair."""
        signals = frozenset(self.signal) & set(PAIR_SIGNALS)
        return SignalOptions(signals, self.image_distance, self.roots() or NO_ROOTS)


def measure(keyed: DataFrame, wanted: SignalOptions) -> DataFrame:
    """The keys of `keyed` (pairs as `with_keys` returns them) and, if any signal is wanted, the
    columns of `udfs.signals.rows.SCHEMA`. Reads images only for signals that need them."""
    keys = [F.col(key) for key in PAIRS_KEYS]
    if not wanted.signals:
        return keyed.select(*keys)
    image = "image_path" if "image_path" in keyed.columns else "image"
    inputs = [image] if wanted.any_of(IMAGE_SIGNALS) else []
    inputs += ["caption"] if wanted.any_of(CAPTION_SIGNALS) else []
    # As bytes: text that is not valid UTF-8 would fail the task on its way to Python.
    narrow = keyed.select(*keys, *(F.col(name).cast("binary").alias(name) for name in inputs))
    measure_batches = partial(signal_rows.measure_batches, keys=PAIRS_KEYS, options=wanted)
    schema = T.StructType([T.StructField(key, T.StringType()) for key in PAIRS_KEYS])
    return narrow.mapInArrow(
        measure_batches, T.StructType([*schema, *from_arrow_schema(signal_rows.SCHEMA)])
    )


def with_stars(rows: DataFrame, name: str, stars: DataFrame, what: str) -> DataFrame:
    """Add `near_<what>_of` and `near_<what>_copies` from `stars` (see `near_duplicates.groups`).

    `rows` has `row` and the column `name`, which holds the name of each row's node.
    """
    columns = stars.select(
        F.col("name").alias(name),
        F.col("centre").alias("_centre"),
        F.col("copies").alias(f"near_{what}_copies"),
    )
    centre_uid = F.when(~F.col("row").eqNullSafe(F.col("_centre")), F.col("_centre.uid"))
    rows = rows.join(columns, on=name, how="left").withColumn(f"near_{what}_of", centre_uid)
    return rows.drop("_centre")


def run(spark: SparkSession, config: SignalsConfig) -> dict[str, Any]:
    """Write the signals table; return counts over it.

    Raises UsageError for what the user can correct.
    """
    _check_libraries(config.signal)
    version = delta.version(spark, config.pairs)
    pairs = delta.read(spark, config.pairs, version)
    keyed = keyed_by(pairs, config)
    _check_output(spark, config.output)
    summary: dict[str, Any] = {
        "pairs": config.pairs,
        "pairs_version": version,
        "signals": list(dict.fromkeys(config.signal)),
    }
    job_runner.say(f"{config.pairs} (version {version}): {', '.join(summary['signals'])}")
    if config.dry_run:
        count = pairs.count()
        if config.limit is not None:
            count = min(count, config.limit)
        job_runner.say(f"{count:,} rows (dry run: nothing is written)")
        return summary | {"dry_run": True, "rows": count}

    cached: list[DataFrame] = []
    try:
        rows = _compute(spark, keyed, config, cached)
        _step("writing", spark, lambda: _write(rows, config.output))
    finally:
        for frame in cached:
            frame.unpersist()
    written = delta.read(spark, config.output, delta.version(spark, config.output))
    counts = count_signals(written, config.signal)
    _print_summary(counts)
    return summary | {"output": config.output} | counts


def _compute(
    spark: SparkSession, keyed: DataFrame, config: SignalsConfig, cached: list[DataFrame]
) -> DataFrame:
    """The rows for `with_all_columns`; tables that it caches are added to `cached`."""

    def cache(frame: DataFrame) -> DataFrame:
        cached.append(frame.persist())
        return cached[-1]

    wanted = set(config.signal)
    if config.limit is not None:
        keyed = signals_table.first_rows(keyed, config.limit)
    rows = measure(keyed, config.wanted())
    if config.limit is not None:
        rows = rows.orderBy(*signals_table.hash_order()).limit(config.limit)
    if not wanted & {"duplicates", "near_images", "near_captions"}:
        return rows
    rows = cache(signals_table.with_row(rows))  # else the images would be decoded several times
    _step("images and captions", spark, rows.count)
    all_rows = rows
    if "duplicates" in wanted:
        rows = signals_table.with_copies(rows)
    if "near_images" in wanted:
        nodes = cache(near_duplicates.nodes_of(all_rows, "phash", ["image_keys"]))
        edges = near_duplicates.near_images(nodes, config.image_distance)
        stars = _step("near images", spark, partial(near_duplicates.groups, nodes, edges))
        rows = with_stars(rows, "phash", stars, "image")
    if "near_captions" in wanted:
        extra = ["caption_keys", "shingles"]
        nodes = cache(near_duplicates.nodes_of(all_rows, "caption_node", extra))
        edges = near_duplicates.near_captions(nodes, config.caption_similarity)
        stars = _step("near captions", spark, partial(near_duplicates.groups, nodes, edges))
        rows = with_stars(rows, "caption_node", stars, "caption")
    return rows


def _step(what: str, spark: SparkSession, action: Any) -> Any:
    """Run `action` with progress lines, and print how long it took."""
    started = time.monotonic()
    with task_progress(spark):
        result = action()
    job_runner.say(f"  {what}: {duration(time.monotonic() - started)}")
    return result


def _write(rows: DataFrame, output: str) -> None:
    finished = signals_table.with_all_columns(rows)
    delta.overwrite(finished, output, skipping=PAIRS_KEYS)


def count_signals(signals: DataFrame, wanted: Iterable[str]) -> dict[str, Any]:
    """Counts over a signals table: rows, statuses; as far as in `wanted`, duplicates and the ten
    commonest languages."""
    near = [f"near_{what}s" for what in ("image", "caption") if f"near_{what}s" in wanted]
    duplicates = {"duplicates": "duplicate"} if "duplicates" in wanted else {}
    sums = [F.count_if(column).alias(name) for name, column in duplicates.items()]
    sums += [F.count(f"{name[:-1]}_of").alias(name) for name in near]
    by_status = signals.groupBy("signal_status").agg(F.count("*").alias("rows"), *sums).collect()
    counts: dict[str, Any] = {
        "rows": sum(row["rows"] for row in by_status),
        "statuses": {row["signal_status"]: row["rows"] for row in sorted(by_status)},
    }
    for name in (*duplicates, *near):
        counts[name] = sum(row[name] for row in by_status)
    if "language" in wanted:
        commonest = signals.groupBy("language").count().orderBy(F.desc("count"), "language")
        counts["languages"] = {row[0] or "none": row[1] for row in commonest.limit(10).collect()}
    return counts


def _check_libraries(signals: Iterable[str]) -> None:
    for signal in signals:
        library, extra = _LIBRARIES.get(signal, ("", ""))
        if library and find_spec(library) is None:
            raise UsageError(
                f"--signal {signal} needs {library}: install mlm-filter[{extra}], on executors too"
            )


def _check_output(spark: SparkSession, output: str) -> None:
    """Refuse to replace a table that this job cannot have written."""
    needed = set(signals_table.SIGNALS_TABLE.names)
    if delta.exists(spark, output) and not needed <= set(delta.read(spark, output).columns):
        raise UsageError(f"{output} is a table of another kind, which would be replaced")


def _print_summary(counts: dict[str, Any]) -> None:
    statuses = ", ".join(f"{status} {rows:,}" for status, rows in counts["statuses"].items())
    job_runner.say(f"{counts['rows']:,} rows: {statuses or 'none'}")
    labels = {
        "duplicates": "rows with the same image as another row",
        "near_images": "rows with nearly the same image as another row",
        "near_captions": "rows with nearly the same caption as another row",
    }
    for name, text in labels.items():
        if name in counts:
            job_runner.say(f"{text}: {counts[name]:,}")
    if "languages" in counts:
        languages = ", ".join(f"{code} {rows:,}" for code, rows in counts["languages"].items())
        job_runner.say(f"languages of captions: {languages}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; return its exit code."""
    return job_runner.main("signals", SignalsConfig, run, argv)
