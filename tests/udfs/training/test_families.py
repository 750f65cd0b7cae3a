"""Every family that scores can be fine-tuned, and what is trained is what is scored."""

from __future__ import annotations

import dataclasses
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_examples
import tiny_families

from udfs.models import mlm
from udfs.models.model_config import ModelConfig
from udfs.training.collator import collate
from udfs.training.forward import packed_logits, separate_logits
from udfs.training.run import make_trainer, save
from udfs.training.trainable_parts import part_of

PLAIN = {"paligemma", "qwen3_5"}
"""Families whose attention no block mask can stand for: they train on plain sequences."""
NO_TEXT_ALONE = {"paligemma"}
"""Families whose processor takes no conversation without a picture."""
STEPS = 20
PARTS = {
    "llava": {"language": "full", "projector": "frozen", "vision": "frozen"},
    "internvl": {"language": "frozen", "projector": "full", "vision": "frozen"},
    "qwen2_5_vl": {"language": "lora", "projector": "full", "vision": "lora"},
    "qwen3_vl": {"language": "lora", "projector": "full", "vision": "full"},
    "idefics3": {"language": "full", "projector": "full", "vision": "full"},
    "mistral3": {"language": "frozen", "projector": "frozen", "vision": "lora"},
}
"""What is trained in other families: the default."""


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_examples.write_with_held_out(tmp_path_factory.mktemp("examples"))


@pytest.fixture(scope="module", params=list(tiny_families.TRAINED))
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny model, called like its family."""
    folder = tmp_path_factory.mktemp("family") / request.param
    return tiny_families.TRAINED[request.param](folder)


def batch_of(trainer: Any, images: int = 2) -> dict[str, Any]:
    items = islice(iter(trainer.dataset.sampler), images)
    prepared: dict[str, Any] = trainer._prepare_inputs(
        collate([trainer.dataset[item] for item in items])
    )
    return prepared


def loss_of(trainer: Any, batch: dict[str, Any]) -> float:
    return float(trainer.compute_loss(trainer.model.eval(), batch).detach())


def test_a_family_learns_what_it_is_scored_by(family: Path, examples: Path, tmp_path: Path) -> None:
    import torch

    name = family.name
    mix = 0.0 if name in NO_TEXT_ALONE else 0.2
    settings = tiny_examples.settings(train=PARTS.get(name, {}), mix=mix)
    run = tiny_examples.run(family, examples, tmp_path, STEPS, settings=settings)
    if name in PLAIN:  # slow: a sequence a branch
        run = dataclasses.replace(run, trainer=run.trainer | {"per_device_train_batch_size": 1})
    half = tiny_examples.settings(train=PARTS.get(name, {}), dtype="bfloat16")
    for chosen in (half, settings):
        trainer = make_trainer(dataclasses.replace(run, settings=chosen.model_dump_json()))
        assert trainer.packed == (name not in PLAIN)

    # packed and plain sequences, read through peft's wrapper where there is one: the same loss
    batch, losses = batch_of(trainer), []
    for trainer.packed in (True, False):
        if trainer.packed and name in PLAIN:
            continue
        losses.append(loss_of(trainer, batch))
    assert losses[0] == pytest.approx(losses[-1], rel=1e-4)
    trainer.packed = name not in PLAIN

    # another picture, another loss
    other = {
        key: value.flip(0) + 1 if value.is_floating_point() else value
        for key, value in batch["pixels"].items()
    }
    assert abs(loss_of(trainer, batch | {"pixels": other}) - losses[0]) > 1e-4

    # gradients reach the parts that are trained, and no others
    model = trainer.accelerator.unwrap_model(trainer.model)
    loss = trainer.compute_loss(model.train(), batch)
    assert isinstance(loss, torch.Tensor)
    loss.backward()
    plain = model.get_base_model() if hasattr(model, "peft_config") else model
    wanted = settings.train.model_dump()
    reached = {
        part
        for key, weight in plain.named_parameters()
        if weight.grad is not None and weight.grad.abs().max() > 0
        for part in [part_in(key)]
    }
    assert reached == {part for part, how in wanted.items() if how != "frozen"}
    assert all(w.requires_grad or w.grad is None for w in plain.parameters())
    model.zero_grad()

    # twenty steps lower the loss
    trainer.train()
    history = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(history) == STEPS
    assert np.mean(history[-5:]) < np.mean(history[:5])

    # what was saved and merged scores as the trainer's own evaluation
    uids, scores, _ = trainer.predict_scores()
    save(trainer, run)
    scorer = mlm.load(ModelConfig(run.output))
    held_out = trainer.held_out
    assert held_out is not None
    pairs = sorted({(row.image, row.caption) for row in held_out.instructions})
    answers = scorer.score([held_out.images[i] for i, _ in pairs], [text for _, text in pairs])
    assert len(answers) == len(uids) == 8
    again = np.array([answer.expectation for answer in answers])
    assert np.abs(again - scores[:, 0]).max() < 1e-3  # points: 1e-5 of a probability, 0..100


def part_in(key: str) -> str:
    """The part that a weight belongs to, told by its name in another way than `part_of` does."""
    if any(
        word in key for word in ("multi_modal_projector", "connector", "merger", "embed_vision")
    ):
        return "projector"
    vision = ("vision_tower", "vision_model", "visual.", "image_newline")
    return "vision" if any(word in key for word in vision) else "language"


def test_parts_agree_with_the_names_of_every_family(family: Path) -> None:
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(family)
    for name, part in part_of(model).items():
        if name != "model":  # LLaVA-NeXT's image_newline belongs to it
            assert part == part_in(f"{name}."), name


@pytest.mark.parametrize(
    "family", [name for name in tiny_families.TRAINED if name not in PLAIN], indirect=True
)
def test_the_logits_of_packed_and_plain_sequences_are_the_same(
    family: Path, examples: Path, tmp_path: Path
) -> None:
    import torch

    settings = tiny_examples.settings(style="chain_of_thought")
    trainer = make_trainer(tiny_examples.run(family, examples, tmp_path, settings=settings))
    batch = batch_of(trainer, 3)
    with torch.no_grad():
        model = trainer.accelerator.unwrap_model(trainer.model).eval()
        packed, plain = (run(model, model, batch) for run in (packed_logits, separate_logits))
    for one, other in zip(packed, plain, strict=True):
        assert (one.softmax(-1) - other.softmax(-1)).abs().max() < 1e-5
