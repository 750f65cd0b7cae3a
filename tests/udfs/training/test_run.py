"""A training as it runs: killed and gone on with, by several processes, with the user's arguments,
and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_examples
import tiny_models

from udfs.training.checkpoints import CHECKPOINTS, COMPLETE, TrainingError, last_checkpoint
from udfs.training.run import Run, argument_defaults, fit, make_trainer, training_arguments
from udfs.training.settings import Objectives, Parts
from udfs.training.trainable_parts import PartsError, part_of

ROOT = Path(__file__).parents[3]
KILLED = """
import dataclasses, json, os, sys
from pathlib import Path
from transformers import TrainerCallback
from udfs.training import run, trainer
class Kill(trainer.CompleteMarker):
    def on_save(self, args, state, control, **more):
        super().on_save(args, state, control, **more)
        if state.global_step == 2:
            os.kill(os.getpid(), 9)
trainer.CompleteMarker = Kill
run.fit(run.Run(**json.loads(sys.argv[1])))
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.qwen2_5_vl(tmp_path_factory.mktemp("qwen2_5_vl"))


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_examples.write_with_held_out(tmp_path_factory.mktemp("examples"))


def saved_often(base: Path, examples: Path, work: Path) -> Run:
    settings = tiny_examples.settings(lora={"rank": 4, "alpha": 8, "dropout": 0.1})
    trainer = {"save_steps": 2, "eval_steps": 2, "num_train_epochs": 3}
    return tiny_examples.run(base, examples, work, 5, settings=settings, trainer=trainer)


def test_a_killed_training_goes_on_to_the_same_figures(
    base: Path, examples: Path, tmp_path: Path
) -> None:
    whole = fit(saved_often(base, examples, tmp_path / "whole"))
    run = saved_often(base, examples, tmp_path / "killed")
    command = [sys.executable, "-c", KILLED, json.dumps(dataclasses.asdict(run))]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    half = tmp_path / "killed" / CHECKPOINTS / "checkpoint-4"
    half.mkdir()  # as a kill in the middle of saving leaves it
    (half / "model.safetensors").write_bytes(b"half")
    again = fit(run)
    assert again["steps"] == whole["steps"] == 5
    assert again["predictions"]["uids"] == whole["predictions"]["uids"]
    gap = np.array(again["predictions"]["scores"]) - np.array(whole["predictions"]["scores"])
    assert np.abs(gap).max() < 1e-4
    figures = [
        [entry for entry in result["losses"] if "eval_spearman" in entry]
        for result in (whole, again)
    ]
    for one, other in zip(*figures, strict=True):
        assert one["eval_spearman"] == pytest.approx(other["eval_spearman"], abs=1e-6)


def test_foreign_and_damaged_checkpoints_are_refused_in_words(tmp_path: Path) -> None:
    folder = tmp_path / CHECKPOINTS / "checkpoint-3"
    folder.mkdir(parents=True)
    assert last_checkpoint(tmp_path, "this") is None  # half written: gone
    assert not folder.exists()
    folder.mkdir()
    (folder / COMPLETE).touch()
    assert last_checkpoint(tmp_path, "this") == str(folder)
    with pytest.raises(TrainingError, match="checkpoints of another training"):
        last_checkpoint(tmp_path, "that")
    newer = folder.with_name("checkpoint-12")
    newer.mkdir()
    (newer / COMPLETE).touch()
    assert last_checkpoint(tmp_path, "this") == str(newer)
    for name in ("trainer_state.json", "model.safetensors", "optimizer.pt", "rng_state.pth"):
        (folder / name).write_bytes(b"\x10" * 30)  # also of an older one, which may be the best
        with pytest.raises(TrainingError, match=rf"checkpoint-3/{name} is damaged .*: remove "):
            last_checkpoint(tmp_path, "this")
        (folder / name).unlink()


def test_the_users_arguments_reach_the_trainer(base: Path, examples: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "learning_rate": 0.123,
        "gradient_checkpointing": True,
        "weight_decay": 0.5,
        "lr_scheduler_type": "linear",
        "max_grad_norm": 7.0,
    }
    run = tiny_examples.run(base, examples, tmp_path, trainer=given)
    trainer = make_trainer(run)
    for name, value in given.items():
        assert getattr(trainer.args, name) == value
    assert trainer.args.output_dir == str(tmp_path / CHECKPOINTS)
    trainer.train()  # also with gradient checkpointing through frozen weights
    assert {"deepspeed", "fsdp", "bf16", "report_to"} <= argument_defaults().keys()
    assert "output_dir" not in argument_defaults()
    for loggers in ("mlflow", "tensorboard", "none"):  # only looked for where they are used
        asked = dataclasses.replace(run, trainer={"report_to": loggers})
        arguments = training_arguments(asked, tiny_examples.settings(), evaluates=False)
        assert arguments.report_to == ([] if loggers == "none" else [loggers])
    read = {"eval_strategy": False, "save_strategy": False, "learning_rate": "2e-5"}  # by YAML
    asked = dataclasses.replace(run, trainer=read)
    arguments = training_arguments(asked, tiny_examples.settings(), evaluates=True)
    assert (arguments.eval_strategy, arguments.save_strategy) == ("no", "no")
    assert arguments.learning_rate == 2e-5
    assert not arguments.load_best_model_at_end
    with pytest.raises(TrainingError, match="no_such"):
        make_trainer(dataclasses.replace(run, trainer={"no_such": 1}))


def test_early_stopping_and_the_best_checkpoint(base: Path, examples: Path, tmp_path: Path) -> None:
    settings = tiny_examples.settings(early_stopping=1)
    trainer = {"learning_rate": 0.0, "save_steps": 1, "eval_steps": 1}
    run = tiny_examples.run(base, examples, tmp_path, 6, settings=settings, trainer=trainer)
    result = fit(run)  # nothing is learned, so that no evaluation is better than the first
    assert result["steps"] == 2
    best = [entry["eval_spearman"] for entry in result["losses"] if "eval_spearman" in entry]
    assert best[0] == pytest.approx(best[1])


def test_two_processes_train_together(base: Path, examples: Path, tmp_path: Path) -> None:
    run = tiny_examples.run(base, examples, tmp_path, 2)
    script = (
        "import json, sys; from udfs.training import run;"
        "result = run.fit(run.Run(**json.loads(sys.argv[1])));"
        "print(json.dumps(result['steps']))"
    )
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    program = tmp_path / "fit.py"
    program.write_text(script)
    done = subprocess.run(
        [*launcher, "--standalone", str(program), json.dumps(dataclasses.asdict(run))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "model" / "adapter_model.safetensors").is_file()


def test_what_cannot_be_trained_is_refused() -> None:
    from torch import nn

    with pytest.raises(ValueError, match="nothing would be trained"):
        Parts(language="frozen", projector="frozen")
    with pytest.raises(ValueError, match="makes a whole model"):
        Parts(language="full", vision="lora")
    with pytest.raises(ValueError, match="nothing would be learned"):
        Objectives(number_cross_entropy=0, reason_likelihood=0)

    class TextModel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.decoder, self.head = nn.Linear(2, 2), nn.Linear(2, 2)

        def get_decoder(self) -> nn.Module:
            return self.decoder

        def get_output_embeddings(self) -> nn.Module:
            return self.head

    with pytest.raises(PartsError, match="TextModel has no projector"):
        part_of(TextModel())
