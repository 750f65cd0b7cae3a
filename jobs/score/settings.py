"""The settings of the score job."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from udfs.models.model_config import DType, How, ModelConfig
from udfs.scoring.stream import IMAGE_MEMORY
from udfs.starter.model import STARTER

from ..core.image_path_settings import ImagePathConfig


class ScoreConfig(ImagePathConfig):
    """Score the pairs that have no scores yet with a multimodal model -> a scores table."""

    pairs: str = Field(description="pairs table: a path or catalog.schema.table")
    scores: str = Field(description="scores table; created if it does not exist")
    runs: str | None = Field(default=None, description="runs table (default: SCORES_runs)")
    model: str = Field(
        default=STARTER,
        description="folder or hub id of an image-text-to-text model, or of a dual encoder"
        " (CLIP, SigLIP ...) for clip_score",
    )
    revision: str | None = Field(default=None, description="commit of a model on the hub")
    dtype: DType = Field(
        default="auto", description="precision; auto: float32 on a CPU, bfloat16 on a GPU"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto",
        description="auto: the task's GPU where Spark gives it one, else the CPU;"
        " cuda: GPUs of this machine shared out by partition",
    )
    how: How = Field(
        default="auto",
        description="way to run an MLM (--dry-run names it); auto: the fastest that is exact",
    )
    max_caption_tokens: int = Field(
        default=512, ge=8, le=8192, description="longer captions are truncated and marked"
    )
    batch_rows: int = Field(default=16, ge=1, description="maximum pairs in a micro-batch")
    batch_tokens: int = Field(default=8192, ge=256, description="maximum tokens in a micro-batch")
    image_memory: int = Field(
        default=IMAGE_MEMORY >> 20,
        ge=1,
        description="MiB of decoded images that wait for the model, in each task; a larger one "
        "waits alone",
    )
    batch_timeout: float = Field(
        default=1800, gt=0, description="seconds for a micro-batch; then its pairs are tried alone"
    )
    batch_memory: int = Field(
        default=0,
        ge=0,
        description="MiB that the model's process may take besides the model (0: a quarter of the"
        " machine's memory, at least 4 GiB)",
    )
    slice_rows: int = Field(default=200_000, ge=1, description="maximum rows between two commits")
    partitions: int = Field(default=0, ge=0, description="tasks per slice (0: as many as pay off)")
    retry: list[Literal["bad_image", "model_error", "crashed", "timeout"]] = Field(
        default_factory=list, description="score rows with this status again; may be repeated"
    )
    max_attempts: int | None = Field(
        default=None, ge=2, description="with --retry: leave rows that were tried this often"
    )
    uid_column: str = Field(default="uid", description="column with the pair's key")
    image_column: str = Field(default="image", description="column with the image's bytes")
    caption_column: str = Field(default="caption", description="column with the caption")

    def model_config_of(self, commit: str | None, content: str | None = None) -> ModelConfig:
        """What executors need to load the model, pinned to `commit` where it is on the hub and to
        the hash of its `content` where it is a folder."""
        return ModelConfig(
            model=self.model,
            revision=commit or self.revision,
            dtype=self.dtype,
            max_caption_tokens=self.max_caption_tokens,
            how=self.how,
            batch_rows=self.batch_rows,
            batch_tokens=self.batch_tokens,
            image_memory=self.image_memory << 20,
            content=content,
            batch_timeout=self.batch_timeout,
            batch_memory=self.batch_memory << 20,
        )
