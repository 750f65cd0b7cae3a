"""What is trained, and how: a recipe of stages, read from YAML (conf/starter_recipe.yaml).

A stage is a number of steps over a mix of losses, each with a weight:

- `rank`: captions of one image whose order is known without a teacher (its own, spoiled, of another
  image), ranked by the scores that the model reads out.
- `score`: cross-entropy of the read-out distribution against the teacher's score.
- `reason`: next-token loss of the teacher's reason, after the score (rationalization) or before it
  (chain of thought).

The paper fine-tunes on scores and reasons alone (arXiv 2403.02677, section 3.3), from a model whose
projector is aligned.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from udfs.scoring.prompts import Prompt

Style = Literal["rationalization", "chain_of_thought"]
"""As `prompts.STYLES`."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Weights(_Frozen):
    """The weight of each loss in a stage; one of weight 0 is not computed."""

    rank: float = Field(default=0.0, ge=0)
    score: float = Field(default=0.0, ge=0)
    reason: float = Field(default=0.0, ge=0)


class Stage(_Frozen):
    """A number of optimizer steps over one mix of losses."""

    name: str
    steps: int = Field(ge=1)
    weights: Weights
    learning_rate: float = Field(gt=0)
    projector_rate: float | None = Field(
        default=None, gt=0, description="learning rate of the projector; None: the stage's own"
    )
    warmup: float = Field(default=0.03, ge=0, le=1, description="share of steps (cosine after it)")
    ranked: int = Field(default=8, ge=0, description="images a step, for rank")
    own: int = Field(
        default=1, ge=1, description="captions of its own that a ranked image has, at most"
    )
    rivals: float = Field(
        default=4,
        gt=0,
        description="other images' captions beside an image's own; 0.7: beside seven of ten images"
        " one. How often captions match is learned as well: a last stage should have it as the"
        " tables to be scored do",
    )
    scored: int = Field(default=8, ge=0, description="images with teacher's scores a step")
    caption_tokens: int = Field(default=48, ge=4, description="captions are cut at so many tokens")
    sampled_numbers: bool = Field(
        default=False,
        description="learn the first digit of each score, and (weighing little) the rest of one"
        " number drawn around it, and rank by the first digit: half of the tokens of reading whole"
        " distributions. Where digits are tokens, 1 to 9 and 100 are learned as their neighbours",
    )
    averaged: int = Field(
        default=1,
        ge=1,
        description="begin with the mean of the weights that so many stages, those just before,"
        " ended with (as `averaged` of the recipe)",
    )
    frozen_layers: int = Field(
        default=0,
        ge=0,
        description="so many language layers, from below, keep still, and with any of them the"
        " projector: no gradient runs through them, which is most of a step's cost",
    )

    @model_validator(mode="after")
    def _has_a_loss(self) -> Self:
        if not any(self.weights.model_dump().values()):
            raise ValueError(f"stage {self.name!r} has no loss with a weight above 0")
        return self


class Lora(_Frozen):
    """A low-rank adapter on the language model's linear layers (`peft.LoraConfig`)."""

    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)


class Recipe(_Frozen):
    """Everything that decides what a training gives, beside its data."""

    stages: tuple[Stage, ...] = Field(min_length=1)
    lora: Lora | None = Field(
        default=Lora(), description="None: the language model is trained in full"
    )
    style: Style = Field(
        default="rationalization",
        description="of instructions, and of the prompt, whatever it says",
    )
    prompt: Prompt = Prompt()
    soft_target: float = Field(
        default=4.0, ge=0, description="spread of the target over neighbouring numbers, in points"
    )
    distance: float = Field(
        default=0.0,
        ge=0,
        description="weight of the mean's squared distance, in units of 25 points",
    )
    max_gradient: float = Field(default=1.0, gt=0, description="gradients are clipped to this norm")
    weight_decay: float = Field(default=0.01, ge=0)
    accumulate: int = Field(default=1, ge=1, description="micro-batches an optimizer step")
    averaged: int = Field(
        default=1,
        ge=1,
        description="what counts is the mean of the weights that so many stages, the last ones, end"
        " with: each errs in its own way (arXiv 1803.05407)",
    )
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    views: int = Field(
        default=1,
        ge=1,
        description="so many views of each image are learned from in turn: the image itself and"
        " crops of it (data augmentation); each takes as long to compute as the first",
    )
    seed: int = 0

    @model_validator(mode="after")
    def _has_so_many_stages(self) -> Self:
        for count, before, where in (
            *((s.averaged, at, f"stage {s.name!r}: ") for at, s in enumerate(self.stages)),
            (self.averaged, len(self.stages), ""),
        ):
            if count > max(1, before):
                raise ValueError(f"{where}averaged: {count}, but there are {before} stages before")
        return self

    def averages(self) -> set[int]:
        """The stages, by number, whose ends are averaged with others."""
        spans = [(at, stage.averaged) for at, stage in enumerate(self.stages)]
        spans.append((len(self.stages), self.averaged))
        return {n for end, count in spans if count > 1 for n in range(end - count, end)}

    @model_validator(mode="after")
    def _prompt_has_the_style(self) -> Self:
        if self.prompt.style != self.style:
            object.__setattr__(self, "prompt", replace(self.prompt, style=self.style))
        return self
