"""Teach a model to score: a teacher's answers -> a model folder.

    mlm-filter finetune --instructions I --model FOLDER_OR_HUB_ID --output MODEL \\
                        --group-column book --hold-out history

A run that was killed goes on from its newest checkpoint when the same command is given again.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pyspark.sql import SparkSession

from udfs.core import peft_adapters
from udfs.core.file_locks import lock_or_refuse
from udfs.models import dual_encoder, identity
from udfs.models.model_config import ModelError
from udfs.scoring.chat_template import TemplateError
from udfs.scoring.number_tree import NumberTreeError
from udfs.scoring.prompts import PromptError
from udfs.starter import model as starter
from udfs.starter.wheels import StarterError
from udfs.training.checkpoints import TrainingError
from udfs.training.examples import ExamplesError
from udfs.training.run import Run, argument_defaults, cuda_available, fit
from udfs.training.trainable_parts import PartsError

from ..core import job_runner
from ..core.errors import UsageError
from ..core.job_runner import say
from ..core.settings import nearest
from .conversation_table import read_conversations
from .examples_folder import identity_of, write_examples
from .instruction_tables import read_tables
from .model_card import agreements, model_card
from .settings import FinetuneConfig

WHOLE_NUMBERS = ("max_steps", "gradient_accumulation_steps", "per_device_train_batch_size")
"""Arguments of the trainer that have to be 1 or more."""
TIMED_STEPS = 3
"""Steps that a dry run takes to tell how long a training would."""


@dataclass(frozen=True)
class Base:
    """The model to begin with: its folder or hub id, what an adapter calls it, a hash of it."""

    folder: str
    name: str
    content: str
    revision: str | None


def run(spark: SparkSession, config: FinetuneConfig) -> dict[str, Any]:
    """Read the tables, train, write the model folder; return the summary.

    Raises UsageError for what the user can mend.
    """
    output = Path(config.output).expanduser().resolve()
    if output.exists():
        raise UsageError(f"--output: {output} exists already")
    beside = output.with_name(f"{output.name}.work")
    work = Path(config.work).expanduser().resolve() if config.work else beside
    _check_arguments(config)
    if config.device == "cuda" and not cuda_available():
        raise UsageError("--device cuda: this machine has no GPU that torch can use")
    base = find_base(config.model, config.revision)
    if work.is_relative_to(Path(base.folder).resolve()):
        raise UsageError(f"--work: {work} is the folder of the base model")
    try:
        with ExitStack() as stack:
            if config.dry_run:  # which leaves nothing behind
                output.parent.mkdir(parents=True, exist_ok=True)
                work = Path(stack.enter_context(TemporaryDirectory(dir=output.parent)))
            stack.enter_context(lock_or_refuse(work / "lock"))
            return _train(spark, config, base, output, work)
    except BlockingIOError:
        raise UsageError(f"another run of finetune is at work in {work}") from None
    except (NotADirectoryError, PermissionError, FileNotFoundError) as error:
        raise UsageError(f"cannot write to {error.filename}: {error.strerror}") from None


def _train(
    spark: SparkSession, config: FinetuneConfig, base: Base, output: Path, work: Path
) -> dict[str, Any]:
    tables = read_tables(
        spark,
        config.instructions,
        config.pairs,
        config.style,
        config.group_column,
        config.hold_out,
        config.limit,
    )
    conversations = (
        read_conversations(spark, config.conversations, config.conversation_images)
        if config.conversations
        else iter(())
    )
    data = write_examples(tables, conversations, work / "examples")
    _say_counts(data)
    settings = config.training().model_dump_json()
    device = ("cuda" if cuda_available() else "cpu") if config.device == "auto" else config.device
    scratch = output.with_name(f".{output.name}.new")
    training = Run(
        examples=str(work / "examples"),
        work=str(work),
        output=str(scratch),
        base=base.folder,
        base_name=base.name,
        revision=base.revision,
        identity=identity_of(work / "examples", base.content, settings, config.trainer),
        settings=settings,
        trainer=config.trainer,
        device=device,
        # An adapter of the starter would fit this release's starter alone.
        merge=config.merge or config.model == starter.STARTER,
        timed_steps=TIMED_STEPS if config.dry_run else 0,
    )
    try:
        result = _fit(training, config)
    except (
        *(TrainingError, ExamplesError, PartsError, ModelError),
        *(PromptError, TemplateError, NumberTreeError),
    ) as error:
        raise UsageError(str(error)) from None
    summary = {"model": config.model, **data, "packed": result["packed"]}
    summary["trained_weights"] = result["trained_weights"]
    if config.dry_run:
        return summary | _say_cost(result)
    rows = agreements(result["predictions"]) if "predictions" in result else []
    (scratch / "README.md").write_text(model_card(config, data, result, rows), encoding="utf-8")
    (scratch / "evaluation.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    scratch.rename(output)
    say(f"saved {output}; score with: mlm-filter score --model {output} ...")
    return summary | {"output": str(output), "steps": result["steps"], "evaluation": rows}


def find_base(model: str, revision: str | None) -> Base:
    """The model to fine-tune. Raises UsageError where it cannot be had or is of another kind."""
    if not starter.is_starter(model) and Path(model).expanduser().is_dir():
        model = str(Path(model).expanduser().resolve())
        if peft_adapters.is_adapter(model):
            raise UsageError(
                f"--model: {model} is an adapter; merge it first (finetune --merge makes a whole"
                " model)"
            )
    try:
        content, commit = identity.identity(model, revision)
        if dual_encoder.is_dual_encoder(model, commit):
            raise UsageError(f"--model: {model} is a dual encoder, which gives no four scores")
        folder = starter.folder_of(model)
    except (ModelError, StarterError) as error:
        raise UsageError(str(error)) from None
    return Base(folder, model, content, commit)


def _check_arguments(config: FinetuneConfig) -> None:
    """Raise UsageError for what would only fail after the tables are read."""
    if config.trainer.get("eval_strategy", False) not in (False, "no") and not config.hold_out:
        raise UsageError("--trainer eval_strategy: there is nothing to evaluate on; see --hold-out")
    defaults = argument_defaults()
    for name, value in config.trainer.items():
        if name not in defaults:
            near = nearest(name, sorted(defaults))
            hint = f"; did you mean {near}?" if near else ""
            raise UsageError(f"--trainer: {name} cannot be set{hint}")
        default, option = defaults[name], f"--trainer {name}={value}"
        if isinstance(default, int | float) and not isinstance(default, bool):
            try:
                number = float(value)
            except (TypeError, ValueError):
                raise UsageError(f"{option}: a number needed") from None
            whole = name in WHOLE_NUMBERS
            if not isfinite(number) or number < whole or (whole and number != int(number)):
                raise UsageError(f"{option}: {'a whole number' if whole else 'a number'} needed")


def _fit(training: Run, config: FinetuneConfig) -> dict[str, Any]:
    if not config.processes:
        return fit(training)
    from pyspark.ml.torch.distributor import TorchDistributor

    distributor = TorchDistributor(
        num_processes=config.processes,
        local_mode=not config.cluster,
        use_gpu=training.device == "cuda",
    )
    with contextlib.redirect_stdout(sys.stderr):  # stdout is for the line of JSON
        try:
            return distributor.run(fit, training) or {}
        except RuntimeError as error:
            raise RuntimeError(
                f"one of {config.processes} processes failed; its error stands above, and without"
                " --processes it is told in one line"
            ) from error


def _say_counts(data: dict[str, Any]) -> None:
    def listed(counts: dict[str, int]) -> str:
        return ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "none"

    say(f"instructions to train on: {listed(data['instructions'])}; images {data['images']:,}")
    if data["held_out"]:
        say(f"held out: {listed(data['held_out'])}")
    if data["conversations"]:
        say(f"conversations: {data['conversations']:,}")
    if data["left_out"]:
        say(f"left out: {listed(data['left_out'])}")


def _say_cost(result: dict[str, Any]) -> dict[str, Any]:
    seconds = result["steps"] * result["seconds_a_step"]
    say(
        f"{result['trained_weights']:,} trained weights;"
        f" {'packed' if result['packed'] else 'plain'} sequences;"
        f" {result['steps']:,} steps of {result['seconds_a_step']:.2f} s each,"
        f" {seconds / 60:,.0f} minutes without evaluations;"
        f" memory {result['memory_bytes'] / 2**30:.1f} GiB"
    )
    return {
        "dry_run": True,
        "steps": result["steps"],
        "seconds_a_step": result["seconds_a_step"],
        "memory_bytes": result["memory_bytes"],
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the job; return its exit code."""
    return job_runner.main("finetune", FinetuneConfig, run, argv)
