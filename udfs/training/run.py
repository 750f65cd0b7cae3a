"""One training, from a folder of examples to a model folder: what each of its processes runs.

`fit` is what `TorchDistributor`, or the finetune job itself, calls. Only the first process writes;
all processes have to see the folders.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from udfs.core.checked_weights import load_checked
from udfs.training.checkpoints import CHECKPOINTS, TrainingError, last_checkpoint
from udfs.training.examples import HELD_OUT, Examples, read
from udfs.training.settings import TrainingSettings

if TYPE_CHECKING:
    from udfs.training.trainer import ScoreTrainer

_FIXED = ("output_dir", "remove_unused_columns", "use_cpu")  # arguments that are ours to set


@dataclass(frozen=True)
class Run:
    """A training in plain values, which can be sent to other processes.

    `examples` is a folder of examples, `work` one for checkpoints, `output` one for the model;
    `base` a folder or hub id, `revision` its commit, `base_name` what an adapter shall call it;
    `identity` a hash of base, data and settings; `settings` TrainingSettings as JSON; `trainer`
    further arguments of `transformers.TrainingArguments`; `device` "cpu" or "cuda". `merge` asks
    for a whole model even where an adapter is trained, `timed_steps` for a dry run of so many.
    """

    examples: str
    work: str
    output: str
    base: str
    base_name: str
    identity: str
    settings: str
    trainer: dict[str, Any]
    revision: str | None = None
    device: str = "cpu"
    merge: bool = False
    timed_steps: int = 0


def cuda_available() -> bool:
    """Whether this machine has a GPU that torch can use."""
    import torch

    return torch.cuda.is_available()


def argument_defaults() -> dict[str, Any]:
    """What a user may set of `transformers.TrainingArguments`, with the defaults."""
    from transformers import TrainingArguments

    return {f.name: f.default for f in fields(TrainingArguments) if f.name not in _FIXED}


def fit(run: Run) -> dict[str, Any]:
    """Train, evaluate on what was held out, write the model folder.

    Returns `steps`, `trained_weights`, `packed`, `adapter` (else a whole model), `losses` (the
    trainer's log), `predictions` for the held-out pairs and `seconds`; of a dry run what it would
    cost. Raises TrainingError, ExamplesError, PartsError and ModelError.
    """
    started = time.monotonic()
    # The library's progress goes to stdout, which is for the job's line of JSON.
    with contextlib.redirect_stdout(sys.stderr):
        trainer = make_trainer(run)
        model = trainer.accelerator.unwrap_model(trainer.model)
        result: dict[str, Any] = {
            "packed": trainer.packed,
            "trained_weights": sum(w.numel() for w in model.parameters() if w.requires_grad),
            "adapter": hasattr(model, "peft_config") and not run.merge,
        }
        if run.timed_steps:
            return result | _cost(trainer, run)
        checkpoint = last_checkpoint(Path(run.work), run.identity)
        print(f"checkpoint to go on from: {checkpoint}", flush=True)
        trainer.train(resume_from_checkpoint=checkpoint)
    result |= {"steps": trainer.state.global_step, "losses": trainer.state.log_history}
    if trainer.held_out is not None:
        uids, scores, ratings = trainer.predict_scores()
        values = {"scores": scores.tolist(), "ratings": ratings.tolist()}
        result["predictions"] = {"uids": uids, **values}
    save(trainer, run)
    trainer.accelerator.wait_for_everyone()
    return result | {"seconds": time.monotonic() - started}


def make_trainer(run: Run) -> ScoreTrainer:
    """The trainer of a run, with its model ready to train. Raises as `fit` does."""
    from itertools import islice

    from transformers import EarlyStoppingCallback, set_seed
    from transformers.utils import logging as transformers_logging

    from udfs.training.collator import collate
    from udfs.training.forward import can_pack
    from udfs.training.trainable_parts import prepare
    from udfs.training.trainer import CompleteMarker, ScoreTrainer

    transformers_logging.set_verbosity_error()
    settings = TrainingSettings.model_validate_json(run.settings)
    set_seed(settings.seed)
    held_out = None
    if (Path(run.examples) / HELD_OUT).is_dir():
        held_out = read(Path(run.examples) / HELD_OUT)
    model, dataset = _load(run, settings, read(run.examples))
    callbacks: list[Any] = [CompleteMarker()]
    if settings.early_stopping and held_out is not None and not run.timed_steps:
        callbacks.append(EarlyStoppingCallback(settings.early_stopping))
    arguments = training_arguments(run, settings, evaluates=held_out is not None)
    try:
        trainer = ScoreTrainer(
            prepare(model, settings), arguments, dataset, settings, held_out, callbacks
        )
    except (RuntimeError, ValueError, ImportError) as error:  # e.g. no such logger installed
        raise TrainingError(f"trainer: {str(error).splitlines()[0]}") from error
    if settings.packed == "auto":
        first = collate([dataset[item] for item in islice(iter(dataset.sampler), 2)])
        plain = trainer.accelerator.unwrap_model(trainer.model)
        trainer.packed = can_pack(plain, trainer._prepare_inputs(first))
    return trainer


def _load(run: Run, settings: TrainingSettings, examples: Examples) -> tuple[Any, Any]:
    """The base model, and the dataset that encodes with its processor."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from udfs.models.model_config import ModelConfig
    from udfs.models.model_files import find_files
    from udfs.models.torch_setup import load_context
    from udfs.scoring import chat_template, prompts
    from udfs.training.balanced_sampler import BalancedSampler
    from udfs.training.collator import PackedDataset

    options: dict[str, Any] = {"revision": run.revision} if run.revision else {}
    dtype = settings.dtype
    if dtype == "auto":
        small = run.device == "cuda" and settings.train.adapter and torch.cuda.is_bf16_supported()
        dtype = "bfloat16" if small else "float32"
    own = asdict(prompts.load_prompt(find_files(run.base, run.revision).prompt)) | settings.prompt
    own["style"] = settings.style
    prompt = prompts.Prompt(**{**own, "questions": tuple(own["questions"])})
    with load_context(ModelConfig(run.base), run.device, None):
        model = load_checked(
            AutoModelForImageTextToText, run.base, dtype=getattr(torch, dtype), **options
        )
        processor = AutoProcessor.from_pretrained(run.base, trust_remote_code=False, **options)
        template = chat_template.build(processor, prompt)
    sampler = BalancedSampler(examples, settings.mix, settings.captions_per_item, settings.seed)
    return model, PackedDataset(examples, sampler, processor, template, prompt, settings)


def training_arguments(run: Run, settings: TrainingSettings, evaluates: bool) -> Any:
    """The trainer's arguments: this project's defaults, and over them the user's."""
    from transformers import TrainingArguments

    asked = dict(run.trainer)
    for name, value in run.trainer.items():  # YAML reads `no` as false, and 2e-5 as text
        if value is False and "strategy" in name:
            asked[name] = "no"
        elif isinstance(value, str) and value.count("e-") == 1:
            with contextlib.suppress(ValueError):
                asked[name] = float(value)
    steps = asked.get("save_steps", asked.get("eval_steps", 0.1))
    strategy = asked.get("save_strategy", asked.get("eval_strategy", "steps"))
    compares = evaluates and asked.get("eval_strategy", strategy) == strategy != "no"
    defaults: dict[str, Any] = {
        "num_train_epochs": 2,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 4,
        "learning_rate": 1e-4 if settings.train.adapter else 2e-5,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.03,
        "bf16": run.device == "cuda",
        "logging_steps": 10,
        "save_strategy": strategy if strategy != "no" else "steps",
        "save_steps": steps,
        "save_total_limit": 2,
        "eval_strategy": strategy if evaluates else "no",
        "eval_steps": steps,
        "load_best_model_at_end": compares,
        "metric_for_best_model": "eval_spearman",
        "greater_is_better": True,
        "report_to": "none",
        "seed": settings.seed,
        "ddp_find_unused_parameters": settings.train.vision != "frozen",
    }
    fixed = (str(Path(run.work) / CHECKPOINTS), False, run.device == "cpu")
    given = defaults | asked | dict(zip(_FIXED, fixed, strict=True))
    if run.timed_steps:
        given |= {"max_steps": run.timed_steps, "load_best_model_at_end": False}
        given |= {"save_strategy": "no", "eval_strategy": "no"}
    try:
        arguments = TrainingArguments(**given)
    except (TypeError, ValueError, ImportError) as error:
        raise TrainingError(f"trainer: {str(error).splitlines()[0]}") from error
    if "WORLD_SIZE" not in os.environ:
        arguments._n_gpu = min(arguments.n_gpu, 1)  # several GPUs: --processes, not DataParallel
    return arguments


def save(trainer: ScoreTrainer, run: Run) -> None:
    """Write the trained model or its adapter, and the prompt. All processes call this, as weights
    may be spread over them."""
    from transformers import AutoModelForImageTextToText

    from udfs.core import peft_adapters
    from udfs.scoring import prompts

    output = Path(run.output)
    if trainer.is_world_process_zero():
        shutil.rmtree(output, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    trainer.save_model(str(output))
    if not trainer.is_world_process_zero():
        return
    for name in ("training_args.bin", "README.md"):  # a pickle; and peft's card, not the job's
        (output / name).unlink(missing_ok=True)
    adapter = peft_adapters.is_adapter(output)
    if adapter and run.merge:
        parts = output.rename(output.with_name(f"{output.name}.adapter"))
        options = {"revision": run.revision} if run.revision else {}
        model = load_checked(AutoModelForImageTextToText, run.base, dtype="auto", **options)
        peft_adapters.merged(model, parts).save_pretrained(output)
        shutil.rmtree(parts)
    elif adapter:
        config = json.loads((output / peft_adapters.ADAPTER_CONFIG).read_text("utf-8"))
        config |= {"base_model_name_or_path": run.base_name, "revision": run.revision}
        (output / peft_adapters.ADAPTER_CONFIG).write_text(json.dumps(config, indent=1) + "\n")
    if run.merge or not adapter:
        trainer.dataset.processor.save_pretrained(output)
    prompts.save_prompt(trainer.dataset.prompt, output)


def _cost(trainer: ScoreTrainer, run: Run) -> dict[str, Any]:
    """What a training would take: a few steps, timed, on weights that are thrown away."""
    import resource

    import torch

    batches = len(trainer.get_train_dataloader())
    an_epoch = max(1, -(-batches // trainer.args.gradient_accumulation_steps))
    steps = run.trainer.get("max_steps") or int(an_epoch * trainer.args.num_train_epochs)
    started = time.monotonic()
    trainer.train()
    seconds = (time.monotonic() - started) / trainer.state.global_step
    gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    memory = gpu or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"steps": steps, "seconds_a_step": seconds, "memory_bytes": memory}
