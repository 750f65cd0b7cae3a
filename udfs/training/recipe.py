"""What is trained, and how: a recipe of stages, read from YAML (conf/starter_recipe.yaml).

A stage is a number of steps over a mix of losses, each with a weight:

- `distill`: captions' codes (`features.codes`: their mean states halfway up) shall be as alike as a
  sentence encoder finds them (relational distillation, arXiv 1904.05068).
- `align`: the mean image token against the caption's code (InfoNCE). The latter is computed once a
  caption, before the first step, so this is cheap.
- `compare`: coordinates of caption and image, in which those that match are the same, shall stand
  side by side where one layer's MLP multiplies them (`comparing.py`).
- `contrast`: the last hidden state after an image against that after its caption (InfoNCE).
- `rank`: captions of one image whose order is known without a teacher (its own, spoiled, of another
  image), ranked by the scores that the model reads out.
- `assume`: the same captions against scores that are assumed from what is known of them
  (`assumed.py`).
- `imitate`: captions of an image and of others, ranked as a dual encoder does that has not seen the
  image's group (`imitating.py`).
- `score`: cross-entropy of the read-out distribution against the teacher's score.
- `reason`: next-token loss of the teacher's reason, after the score (rationalization) or before it
  (chain of thought).

The paper fine-tunes on scores and reasons alone (arXiv 2403.02677, section 3.3), from a model whose
projector is aligned; the other losses are for pairings that have never seen an image.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from udfs.prompts import Prompt

Style = Literal["rationalization", "chain_of_thought"]
"""As `prompts.STYLES`."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Weights(_Frozen):
    """The weight of each loss in a stage; one of weight 0 is not computed."""

    distill: float = Field(default=0.0, ge=0)
    align: float = Field(default=0.0, ge=0)
    compare: float = Field(default=0.0, ge=0)
    contrast: float = Field(default=0.0, ge=0)
    rank: float = Field(default=0.0, ge=0)
    assume: float = Field(default=0.0, ge=0)
    imitate: float = Field(default=0.0, ge=0)
    score: float = Field(default=0.0, ge=0)
    reason: float = Field(default=0.0, ge=0)


class Stage(_Frozen):
    """A number of optimizer steps over one mix of losses."""

    name: str
    steps: int = Field(
        ge=0, description="with 0 the stage ends with what is done before a first step (`measure`)"
    )
    weights: Weights
    learning_rate: float = Field(gt=0)
    projector_rate: float | None = Field(
        default=None, gt=0, description="learning rate of the projector; None: the stage's own"
    )
    warmup: float = Field(default=0.03, ge=0, le=1, description="share of steps (cosine after it)")
    pairs: int = Field(
        default=32,
        ge=0,
        description="pairs (or texts) a step, for distill, align, compare, contrast",
    )
    ranked: int = Field(default=8, ge=0, description="images a step, for rank and assume")
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
    imitated: int = Field(default=8, ge=0, description="images a step, for imitate")
    beside: int = Field(
        default=5, ge=1, description="other images' captions beside an image's own, for imitate"
    )
    imitated_by: Literal["odds", "mean", "both"] = Field(
        default="both",
        description="what of ITM is to go with what is imitated: log odds of 50 or more, which have"
        " a gradient wherever they are, its mean, which is what counts, or half of each",
    )
    scored: int = Field(default=8, ge=0, description="images with teacher's scores a step")
    caption_tokens: int = Field(default=48, ge=4, description="captions are cut at so many tokens")
    sampled_numbers: bool = Field(
        default=False,
        description="learn the first digit of each score, and (weighing little) the rest of one"
        " number drawn around it, and rank by the first digit: half of the tokens of reading whole"
        " distributions. Where digits are tokens, 1 to 9 and 100 are learned as their neighbours",
    )
    assumed_by: Literal["words", "meaning"] = Field(
        default="words",
        description="what of a caption assumed scores go by, beside whose it is: by its words, or"
        " also by its meaning (the sentence encoder's)",
    )
    averaged: int = Field(
        default=1,
        ge=1,
        description="begin with the mean of the weights that so many stages, those just before,"
        " ended with (as `averaged` of the recipe)",
    )
    temperature: float | None = Field(
        default=None, gt=0, description="of distill, align and contrast; None: the recipe's"
    )
    frozen_layers: int = Field(
        default=0,
        ge=0,
        description="so many language layers, from below, keep still, and with any of them the"
        " projector: no gradient runs through them, which is most of a step's cost",
    )
    compare_depth: int = Field(
        default=6,
        ge=0,
        description="`compare` is for the MLP of the language layer with so many below it",
    )
    measure: bool = Field(
        default=False,
        description="before the first step the layer that an earlier stage with `compare` trained"
        " is given the distance of caption and image to tell, in closed form (`measuring.py`); it"
        " needs an adapter of its own rank (`rank_pattern`), three times what it told with before",
    )
    contrast_layers: int | None = Field(
        default=None,
        ge=1,
        description="contrast after so many language layers (None: all): those above are left to"
        " compare what those below have brought together, and the stage costs less",
    )

    @model_validator(mode="after")
    def _has_a_loss(self) -> Self:
        if not any(self.weights.model_dump().values()):
            raise ValueError(f"stage {self.name!r} has no loss with a weight above 0")
        if self.weights.compare and self.rivals % 1:
            raise ValueError(f"stage {self.name!r}: compare needs a whole number of rivals")
        if self.weights.compare and self.frozen_layers:
            raise ValueError(f"stage {self.name!r}: compare trains the layers below its depth")
        return self

    @property
    def ranks(self) -> bool:
        """Whether it sees images with captions whose order is known."""
        return bool(self.weights.rank or self.weights.assume)

    @property
    def reads_sentences(self) -> bool:
        """Whether it needs what a sentence encoder says of captions, as far as they are read."""
        return bool(self.weights.distill or self.weights.compare)

    @property
    def assumes_by_meaning(self) -> bool:
        """Whether it needs a sentence encoder for the scores that it assumes."""
        return bool(self.weights.assume and self.assumed_by == "meaning")

    @property
    def draws_rivals(self) -> bool:
        """Whether it sets captions of other images beside an image's own."""
        return self.ranks or bool(self.weights.imitate)


class Lora(_Frozen):
    """A low-rank adapter on the language model's linear layers (`peft.LoraConfig`)."""

    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    rank_pattern: dict[str, int] = Field(
        default={},
        description="other ranks for some layers, by a regular expression for how their names end",
    )


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
    temperature: float = Field(default=0.05, gt=0, description="of align and contrast")
    align_layers: int = Field(
        default=8, ge=1, description="captions' codes are taken after so many language layers"
    )
    sentence_encoder: str = Field(
        default="minilm",
        description="for distill, compare, imitate and what is assumed by meaning: folder or hub"
        " id of a Sentence-BERT model, or minilm, a wheel's",
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
    uncrowd: bool = Field(
        default=False,
        description="take off ITM at the end, in closed form, what it owes to crowding"
        " (`uncrowding.py`), as the last stage with `imitate` sets captions beside images",
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
    def _compares_with_an_adapter(self) -> Self:
        if self.lora is None and any(stage.weights.compare for stage in self.stages):
            raise ValueError("compare writes into an adapter (lora), and this recipe has none")
        return self

    @model_validator(mode="after")
    def _measures_what_was_compared(self) -> Self:
        for at, stage in enumerate(self.stages):
            if stage.measure and not self.compared(at):
                raise ValueError(f"stage {stage.name!r}: measure needs a stage with compare before")
        return self

    @model_validator(mode="after")
    def _has_so_many_stages(self) -> Self:
        for count, before, where in (
            *((s.averaged, at, f"stage {s.name!r}: ") for at, s in enumerate(self.stages)),
            (self.averaged, len(self.stages), ""),
        ):
            if count > max(1, before):
                raise ValueError(f"{where}averaged: {count}, but there are {before} stages before")
        return self

    @model_validator(mode="after")
    def _knows_of_crowding(self) -> Self:
        if self.uncrowd and not any(stage.weights.imitate for stage in self.stages):
            raise ValueError("uncrowd goes by a stage with imitate, and this recipe has none")
        return self

    def compared(self, number: int) -> Stage | None:
        """The last stage with `compare` before this one: whose layer `measure` is for."""
        return next((s for s in reversed(self.stages[:number]) if s.weights.compare), None)

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
