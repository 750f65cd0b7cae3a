"""Teach a model to score: a teacher's instructions (and captions that match) -> a model folder.

    mlm-filter finetune --instructions I --captions PAIRS --model FOLDER_OR_HUB_ID \\
                        --recipe recipe.yaml --output MODEL --group-column book --hold-out history

A run that was killed goes on from its newest checkpoint when the same command is given again, and
ends with the same weights.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator
from pyspark.sql import SparkSession

from udfs.baseline.model import BaselineError
from udfs.core import peft_adapters
from udfs.models import dual_encoder, identity
from udfs.models.model_config import ModelError
from udfs.starter import model as starter
from udfs.training.checkpoints import CheckpointError
from udfs.training.examples import ExamplesError
from udfs.training.recipe import Recipe
from udfs.training.run import Settings, cuda_available, fit

from ..core.job_runner import UsageError, say
from ..core.job_runner import main as run_job
from ..core.settings import JobConfig
from ..tables import delta
from . import examples_folder, instruction_tables
from .instruction_tables import Sources, Told
from .recipe_file import read_recipe


class FinetuneConfig(JobConfig):
    """Fine-tune a multimodal model on a teacher's scores -> a model folder that scores."""

    recipe: str = Field(description="YAML file that says what is trained how")
    output: str = Field(description="model folder to make")
    instructions: str | None = Field(
        default=None,
        description="table of uid, caption, metric, score, and maybe image, reason, style: a path"
        " (Delta, Parquet, JSONL) or catalog.schema.table",
    )
    captions: str | None = Field(
        default=None,
        description="pairs table (uid, image, caption) of captions that match their images: for the"
        " loss rank, and for images that --instructions lacks",
    )
    pairs: str | None = Field(
        default=None, description="further table of uid and image, for images of --instructions"
    )
    model: str = Field(
        default=starter.STARTER_BASE,
        description="folder or hub id of the model to fine-tune; starter-base: the small one before"
        " any training; starter: after it, to go on from (needs --merge)",
    )
    revision: str | None = Field(default=None, description="commit of a model on the hub")
    caption_column: list[str] = Field(
        default_factory=lambda: ["caption"],
        description="column of --captions with a caption; may be repeated",
    )
    group_column: str | None = Field(
        default=None, description="column that says which images belong together, e.g. the book"
    )
    hold_out: list[str] = Field(
        default_factory=list,
        description="group that is never trained on, and on which the result is measured; may be"
        " repeated",
    )
    work: str | None = Field(
        default=None, description="folder for examples and checkpoints (default: OUTPUT.work)"
    )
    merge: bool = Field(default=False, description="write a whole model instead of an adapter")
    processes: int = Field(
        default=0,
        ge=0,
        description="train in so many processes by TorchDistributor; 0: in this one",
    )
    cluster: bool = Field(
        default=False, description="processes on the cluster's workers; folders must be shared"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="auto: a GPU where there is one"
    )
    compile: bool = Field(
        default=False, description="compile language layers: faster, needs a C++ compiler"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.instructions is None and self.captions is None:
            raise UsageError("nothing to learn from: give --instructions, --captions or both")
        if self.hold_out and self.group_column is None:
            raise UsageError("--hold-out names groups: --group-column is missing")
        if self.cluster and not self.processes:
            raise UsageError("--cluster: --processes says how many")
        if self.model == starter.STARTER and not self.merge:
            raise UsageError(
                "--model starter: an adapter of it would fit this release's only; add --merge, or"
                " begin with starter-base"
            )
        if not self.caption_column:
            raise UsageError("--caption-column: at least one is needed")
        for option, folder in (("--output", self.output), ("--work", self.work)):
            if folder is not None and delta.is_uri(folder):
                raise UsageError(f"{option} is a folder of this machine, or one that all share")
        self.recipe_of()
        return self

    def recipe_of(self) -> Recipe:
        """The recipe. Raises UsageError."""
        return read_recipe(Path(self.recipe).expanduser())

    def sources(self, style: str) -> Sources:
        """The tables to read, for instructions of this style."""
        return Sources(
            self.instructions,
            self.captions,
            self.pairs,
            style,
            tuple(self.hold_out),
            self.group_column,
            tuple(self.caption_column),
            self.limit,
        )


@dataclass(frozen=True)
class Base:
    """The model to begin with: where it is, what the adapter calls it, a hash of its content."""

    folder: str
    name: str
    content: str
    revision: str | None


def run(spark: SparkSession, config: FinetuneConfig) -> dict[str, Any]:
    """Write the examples, train, return the summary.

    Raises UsageError for what the user can mend.
    """
    recipe = config.recipe_of()
    output = Path(config.output).expanduser().resolve()
    if output.exists():
        raise UsageError(f"--output: {output} is there already")
    beside = output.with_name(f"{output.name}.work")
    work = Path(config.work).expanduser().resolve() if config.work else beside
    sources = config.sources(recipe.style)
    told = instruction_tables.read(spark, sources)
    steps = {stage.name: stage.steps for stage in recipe.stages}
    summary: dict[str, Any] = {"model": config.model, "steps": sum(steps.values())}
    if config.dry_run:
        counts = told.counts()
        _tell(counts)
        tokens = told.tokens()
        say(f"steps: {', '.join(f'{name} {n:,}' for name, n in steps.items())}")
        say(f"about {tokens:,} tokens of captions and reasons in an epoch (4 characters a token)")
        return summary | {"dry_run": True, "tokens_about": tokens} | counts
    base = find_base(config.model, config.revision)
    work.mkdir(parents=True, exist_ok=True)
    data = _examples(spark, told, sources, work / "examples")
    _tell(data)
    device = config.device
    if device == "auto":
        device = "cuda" if cuda_available() else "cpu"
    settings = Settings(
        examples=str(work / "examples"),
        work=str(work),
        output=str(output),
        base=base.folder,
        base_name=base.name,
        base_content=base.content,
        revision=base.revision,
        recipe=recipe.model_dump_json(),
        device=device,
        merge=config.merge,
        compiled=config.compile,
    )
    try:
        result = _fit(settings, config)
    except (ExamplesError, CheckpointError, BaselineError) as error:
        raise UsageError(str(error)) from None
    say(f"saved {output}; score with: mlm-filter score --model {output} ...")
    kept = ("instructions", "captions", "images", "held_out_instructions", "left_out")
    return summary | {name: data[name] for name in kept} | result


def find_base(model: str, revision: str | None) -> Base:
    """The model to fine-tune. Raises UsageError where it cannot be had or is of another kind."""
    if not starter.is_starter(model) and Path(model).expanduser().is_dir():
        model = str(Path(model).expanduser().resolve())
        if peft_adapters.is_adapter(model):
            raise UsageError(f"--model: {model} is an adapter; fine-tune a whole model (--merge)")
    try:
        if dual_encoder.is_dual_encoder(model, revision):
            raise UsageError(f"--model: {model} is a dual encoder and gives no four scores")
        content, commit = identity.identity(model, revision)
        folder = starter.folder_of(model)
    except (ModelError, starter.StarterError) as error:
        raise UsageError(str(error)) from None
    return Base(folder, model, content, commit)


def _examples(spark: SparkSession, told: Told, sources: Sources, folder: Path) -> dict[str, Any]:
    """The folder of examples, written anew unless it holds these very tables."""
    key = examples_folder.key_of(spark, sources)
    known = examples_folder.known(folder)
    if key is not None and known.get("key") == key:
        say(f"examples are in {folder} already")
        return known
    say(f"writing examples to {folder}")
    return examples_folder.write(told, folder, {"key": key, "held_out": list(sources.hold_out)})


def _fit(settings: Settings, config: FinetuneConfig) -> dict[str, Any]:
    if not config.processes:
        return fit(settings)
    from pyspark.ml.torch.distributor import TorchDistributor

    distributor = TorchDistributor(
        num_processes=config.processes,
        local_mode=not config.cluster,
        use_gpu=settings.device == "cuda",
    )
    with contextlib.redirect_stdout(sys.stderr):  # what the processes say: stdout is for the JSON
        result = distributor.run(fit, settings)
    return result or {}


def _tell(counts: dict[str, Any]) -> None:
    def listed(found: dict[str, int]) -> str:
        return ", ".join(f"{name} {n:,}" for name, n in found.items()) or "none"

    say(f"instructions to train on: {listed(counts['instructions'])}")
    say(f"captions that match: {counts['captions']:,} of {counts['images']:,} images")
    if counts["held_out_instructions"] or counts["held_out_images"]:
        say(
            f"held out: {listed(counts['held_out_instructions'])};"
            f" {counts['held_out_images']:,} images with captions"
        )
    for what, found in counts["left_out"].items():
        if found:
            say(f"left out of the {what}: {listed(found)}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; return its exit code."""
    return run_job("finetune", FinetuneConfig, run, argv)
