"""The settings of fine-tuning: which parts of a model are trained, and on what."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Style = Literal["rationalization", "chain_of_thought"]
"""As `udfs.scoring.prompts.STYLES`: the number first, then the reason; or the reason first."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Parts(_Frozen):
    """How each part of a model is trained: by a low-rank adapter, in full, or not at all."""

    language: Literal["lora", "full", "frozen"] = "lora"
    projector: Literal["full", "frozen"] = "full"
    vision: Literal["lora", "full", "frozen"] = "frozen"

    @model_validator(mode="after")
    def _trains_something(self) -> Self:
        if {self.language, self.projector, self.vision} == {"frozen"}:
            raise ValueError("all parts are frozen: nothing would be trained")
        if self.language == "full" and self.vision == "lora":
            raise ValueError(
                "language: full makes a whole model; vision can be full or frozen then"
            )
        return self

    @property
    def adapter(self) -> bool:
        """Whether the result is an adapter (else a whole model)."""
        return "lora" in (self.language, self.vision)


class Lora(_Frozen):
    """Low-rank adapters (`peft.LoraConfig`)."""

    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)


class Objectives(_Frozen):
    """The weight of each objective in the loss; one of weight 0 is not computed."""

    number_cross_entropy: float = Field(default=1.0, ge=0)
    expectation_error: float = Field(default=0.0, ge=0)
    reason_likelihood: float = Field(default=0.1, ge=0)
    ranknet: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _learns_something(self) -> Self:
        if not any(self.model_dump().values()):
            raise ValueError("all weights are 0: nothing would be learned")
        return self


class TrainingSettings(_Frozen):
    """Everything that decides what a training gives, beside its data and the trainer's arguments.

    `spread` is the standard deviation, in points, of the target around a score whose instruction
    names none; `mix` the share of conversations among the items; `prompt` holds fields of
    `udfs.scoring.prompts.Prompt` (the others are the base model's own). `dtype` is that of weights
    that are not trained: "auto" is float32 on a CPU and, beside adapters, bfloat16 on a GPU.
    """

    train: Parts = Parts()
    lora: Lora = Lora()
    objectives: Objectives = Objectives()
    style: Style = "rationalization"
    spread: float = Field(default=4.0, ge=0, le=50)
    mix: float = Field(default=0.0, ge=0, lt=1)
    max_caption_tokens: int = Field(default=512, ge=4)
    captions_per_item: int = Field(default=8, ge=1)
    packed: Literal["auto", "no"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    prompt: dict[str, Any] = {}
    early_stopping: int = Field(default=0, ge=0)
    eval_pairs: int = Field(default=400, ge=1)
    seed: int = 0
