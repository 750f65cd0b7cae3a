"""The settings of the finetune job."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from udfs.scoring.prompts import Prompt, PromptError
from udfs.training.settings import Lora, Objectives, Parts, Style, TrainingSettings

from ..core.errors import UsageError
from ..core.settings import JobConfig
from ..tables import delta


class FinetuneConfig(JobConfig):
    """Fine-tune a multimodal model on a teacher's scores -> a model folder that scores."""

    instructions: str = Field(
        description="the teacher's answers, a row a metric (uid, caption, metric, score) or a"
        " column a metric (uid, caption, itm, odf, ctq, su); maybe image, reason, spread, style,"
        " status: a path (Delta, Parquet, JSONL, CSV) or catalog.schema.table"
    )
    output: str = Field(description="model folder to make")
    model: str = Field(
        default="starter",
        description="folder or hub id of the model to fine-tune; starter: the shipped small one",
    )
    revision: str | None = Field(default=None, description="commit of a model on the hub")
    pairs: str | None = Field(
        default=None, description="table of uid and image, where the instructions have no image"
    )
    group_column: str | None = Field(
        default=None, description="column that says which images belong together, e.g. the book"
    )
    hold_out: list[str] = Field(
        default_factory=list,
        description="group that is never trained on, and on which the result is measured; may be"
        " repeated",
    )
    conversations: str | None = Field(
        default=None,
        description="general visual instructions to mix in: LLaVA's JSON, or a table with its"
        " column `conversations` and maybe `image`",
    )
    conversation_images: str | None = Field(
        default=None, description="folder in which the image paths of --conversations lie"
    )
    mix: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="share of conversations in the training (default: 0.5 with --conversations;"
        " the paper: 0.92)",
    )
    train: Parts = Field(
        default=Parts(), description="how each part is trained: lora, full or frozen"
    )
    lora: Lora = Field(default=Lora(), description="size of the low-rank adapters")
    objectives: Objectives = Field(default=Objectives(), description="weights of the objectives")
    trainer: dict[str, Any] = Field(
        default_factory=dict, description="any argument of transformers.TrainingArguments"
    )
    prompt: dict[str, Any] = Field(
        default_factory=dict, description="fields of the prompt (default: the base model's own)"
    )
    style: Style = Field(
        default="rationalization", description="the number first, or the reason first"
    )
    spread: float = Field(
        default=4.0,
        ge=0,
        le=50,
        description="standard deviation of the target around a score, in points, where the"
        " instructions name none",
    )
    max_caption_tokens: int = Field(default=512, ge=4, description="longer captions are cut")
    captions_per_item: int = Field(
        default=8, ge=1, description="captions of an image that share one sequence, at most"
    )
    packed: Literal["auto", "no"] = Field(
        default="auto", description="pack an image's captions and questions, or train one by one"
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="of weights that are not trained"
    )
    early_stopping: int = Field(
        default=0, ge=0, description="evaluations without a better one after which it ends"
    )
    eval_pairs: int = Field(
        default=400, ge=1, description="held-out pairs in an evaluation while training, at most"
    )
    seed: int = Field(default=0, description="of every random choice")
    merge: bool = Field(default=False, description="write a whole model instead of an adapter")
    work: str | None = Field(
        default=None, description="folder for examples and checkpoints (default: OUTPUT.work)"
    )
    processes: int = Field(
        default=0, ge=0, description="train in so many processes by TorchDistributor; 0: in this"
    )
    cluster: bool = Field(
        default=False, description="processes on the cluster's workers; folders must be shared"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="auto: a GPU where there is one"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.hold_out and self.group_column is None:
            raise UsageError("--hold-out names groups: --group-column is missing")
        if self.cluster and not self.processes:
            raise UsageError("--cluster: --processes says how many")
        if self.mix is not None and self.conversations is None:
            raise UsageError("--mix is a share of --conversations, which is missing")
        if self.conversation_images is not None and self.conversations is None:
            raise UsageError("--conversation-images belongs to --conversations, which is missing")
        try:
            Prompt(**asdict(Prompt()) | self.prompt)
        except (TypeError, PromptError) as error:
            raise UsageError(f"--prompt: {str(error).removeprefix('Prompt.__init__() ')}") from None
        for option, folder in (("--output", self.output), ("--work", self.work)):
            if folder is not None and delta.is_uri(folder):
                raise UsageError(f"{option} is a folder of this machine, or one that all share")
        return self

    def training(self) -> TrainingSettings:
        """What the processes of the training need of these settings."""
        names = TrainingSettings.model_fields.keys() - {"mix"}
        mix = (self.mix or 0.5) if self.conversations else 0.0
        return TrainingSettings(mix=mix, **{name: getattr(self, name) for name in names})
