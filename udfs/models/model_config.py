"""The settings of a model: what decides a score, and batch sizes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from udfs.scoring.stream import IMAGE_MEMORY
from udfs.starter import model as starter

DType = Literal["auto", "float32", "bfloat16", "float16"]
How = Literal["auto", "one_pass", "prefix_cache", "question_passes", "four_passes"]


class ModelError(RuntimeError):
    """The model cannot be found or used; the message names it and says why."""


@dataclass(frozen=True)
class ModelConfig:
    """Which model scores, and how it is run.

    `model` is a local folder, a hub id, "starter" or "starter-base"; `revision` a hub commit (None:
    the latest). An adapter (`udfs.core.peft_adapters`) names its base model itself. A dual encoder
    (`udfs.scoring.dual_encoder_scorer`) gives `clip_score`, any other model the four metrics.
    `dtype` "auto" is float32 on a CPU and bfloat16 (else float16) on a GPU. `how` (for MLMs only),
    `batch_rows`, `batch_tokens` (see `Scorer`) and `image_memory`, the bytes of pictures that wait
    for the model, do not change scores. Nor do `batch_timeout` and `batch_memory`, beyond which the
    model's process is killed: seconds that a batch or the decoding of an image may take, and bytes
    that the process may take besides the model (0: a quarter of the machine's, at least 4 GiB).
    With `content` (from `identity.identity`), a local folder that holds other bytes when it is
    loaded is refused: a run would give scores of two models under one name.
    """

    model: str = starter.STARTER
    revision: str | None = None
    dtype: DType = "auto"
    max_caption_tokens: int = 512
    how: How = "auto"
    batch_rows: int = 16
    batch_tokens: int = 8192
    image_memory: int = IMAGE_MEMORY
    content: str | None = None
    # Of the process, not of the model: with others, it need not be loaded again.
    batch_timeout: float = field(default=1800, compare=False)
    batch_memory: int = field(default=0, compare=False)
