"""Build the dual-encoder baseline: two heads trained on matching pairs -> a model folder.

    mlm-filter baseline --pairs PAIRS --output MODEL --group-column book --leave-out psychology
    mlm-filter score --pairs PAIRS --scores SCORES --model MODEL          # gives clip_score

For machines that reach no model hub: a baseline for image-text matching, made of DINOv2-small and
MiniLM from their wheels. It is not CLIP; if you can get CLIP, score with `--model`
CLIP_FOLDER_OR_ID. Features of images and captions are computed once and stored in `--cache`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from udfs.baseline import model as baseline_model
from udfs.baseline.features import Pair
from udfs.baseline.model_card import Recipe
from udfs.baseline.training import BaselineDataError, train_baseline
from udfs.core.cache_folder import cache_folder
from udfs.starter import wheels

from ..core.errors import UsageError
from ..core.job_runner import main as run_job
from ..core.job_runner import say
from ..core.settings import JobConfig, nearest
from ..tables import delta
from ..tables.delta import quoted


class BaselineConfig(JobConfig):
    """Train the dual-encoder baseline (DINOv2-small + MiniLM, not CLIP) -> a model folder."""

    pairs: str = Field(description="pairs table: a path or catalog.schema.table")
    output: str = Field(description="model folder to create")
    group_column: str | None = Field(
        default=None,
        description="column with the group, e.g. the book, that is held out as a whole",
    )
    leave_out: list[str] = Field(
        default_factory=list, description="group that is not used at all; may be repeated"
    )
    validation: list[str] = Field(
        default_factory=list,
        description="group by which training is stopped; may be repeated (default: groups with 5 %"
        " of the images, chosen by a hash of their names)",
    )
    uid_column: str = Field(default="uid", description="column with the pair's key, for --limit")
    image_column: str = Field(default="image", description="column with the image's bytes")
    caption_column: list[str] = Field(
        default_factory=lambda: ["caption"],
        description="column with a caption that matches the image; may be repeated",
    )
    cache: str | None = Field(
        default=None, description="folder for features (default: the cache of the starter model)"
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        default="float32", description="precision of the features; bfloat16 is faster on new CPUs"
    )
    device: str = Field(default="cpu", description="cpu or cuda:0, for the features")
    steps: int = Field(default=Recipe.steps, ge=1, description="maximum number of training steps")
    seed: int = Field(default=0, ge=0, description="seed of the training")

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        if (self.leave_out or self.validation) and self.group_column is None:
            raise UsageError("--leave-out and --validation need --group-column")
        if both := set(self.leave_out) & set(self.validation):
            raise UsageError(f"{min(both)} is left out, so it cannot be the validation")
        if not self.caption_column:
            raise UsageError("--caption-column: at least one is needed")
        return self


def run(spark: SparkSession, config: BaselineConfig) -> dict[str, Any]:
    """Train and save; return the summary. Raises UsageError for what the user can correct."""
    output = Path(config.output).expanduser()
    if output.exists():
        raise UsageError(f"--output: {output} exists already")
    version = delta.version(spark, config.pairs)
    rows = training_rows(delta.read(spark, config.pairs, version), config)
    summary: dict[str, Any] = {"pairs": config.pairs, "pairs_version": version}
    count = rows.count()
    say(f"{config.pairs} (version {version}): {count:,} rows to train and validate with")
    if config.dry_run:
        return summary | {"dry_run": True, "rows": count}
    cache = Path(config.cache).expanduser() if config.cache else cache_folder()
    try:
        report = train_baseline(
            matched_pairs(rows),
            output,
            validation=config.validation,
            recipe=Recipe(steps=config.steps, seed=config.seed),
            cache=cache,
            dtype=config.dtype,
            device=config.device,
            progress=say,
        )
    except (BaselineDataError, baseline_model.BaselineError, wheels.StarterError) as error:
        raise UsageError(str(error)) from None
    say(f"{baseline_model.NAME}: validation AUC {report.auc:.4f}")
    say(f"saved {output}; score with: mlm-filter score --model {output} ...")
    return summary | {
        "output": str(output),
        "model": baseline_model.NAME,
        "rows": count,
        "images": report.images,
        "captions": report.captions,
        "left_out": report.left_out,
        "validation": report.validation_groups[:20],
        "validation_auc": round(report.auc, 4),
        "step": report.validations[report.best].step,
        "temperature": round(report.temperature, 4),
    }


def training_rows(pairs: DataFrame, config: BaselineConfig) -> DataFrame:
    """The rows to use, with columns `image` (bytes), `group` and `captions` (array of bytes).

    Raises UsageError for a column or a group that does not exist.
    """
    columns = [("uid", config.uid_column), ("image", config.image_column)]
    columns += [("caption", name) for name in config.caption_column]
    columns += [("group", config.group_column)] if config.group_column else []
    for option, name in columns:
        if name not in pairs.columns:
            guess = nearest(name, pairs.columns)
            hint = f"did you mean {guess}?" if guess else f"it has {', '.join(pairs.columns)}"
            raise UsageError(f"--{option}-column: the pairs table has no column {name}; {hint}")
    group = F.col(quoted(config.group_column)) if config.group_column else F.lit(None)
    captions = [F.col(quoted(name)) for name in config.caption_column]
    rows = pairs.withColumn("__group", group.cast("string"))
    if config.group_column:
        groups = [str(row[0]) for row in rows.select("__group").distinct().collect()]
        for option, names in (("leave-out", config.leave_out), ("validation", config.validation)):
            for name in names:
                if name not in groups:
                    guess = nearest(name, groups)
                    hint = f"; did you mean {guess}?" if guess else ""
                    raise UsageError(f"--{option}: no group {name} in {config.group_column}{hint}")
        rows = rows.where(F.col("__group").isNull() | ~F.col("__group").isin(config.leave_out))
    if config.limit is not None:  # the same rows in every run
        uid = F.col(quoted(config.uid_column))
        rows = rows.orderBy(F.xxhash64(uid), uid).limit(config.limit)
    texts = F.array(*(caption.cast("binary") for caption in captions))  # may be no valid UTF-8
    return rows.select(
        F.col(quoted(config.image_column)).alias("image"),
        F.col("__group").alias("group"),
        texts.alias("captions"),
    )


def matched_pairs(rows: DataFrame) -> Iterator[Pair]:
    """Each image with each of its captions, row by row."""
    for row in rows.toLocalIterator():
        image = None if row["image"] is None else bytes(row["image"])
        captions = [bytes(caption) for caption in row["captions"] if caption is not None]
        for caption in captions:
            yield image, caption, row["group"]
        if not captions:  # counted as a pair without a caption, not skipped
            yield image, None, row["group"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; return its exit code."""
    return run_job("baseline", BaselineConfig, run, argv)
