"""What loading every model has in common: device, number type, and errors that name the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from udfs.models.model_config import DType, ModelConfig, ModelError

if TYPE_CHECKING:
    import torch


@contextmanager
def loading(config: ModelConfig, device: str, threads: int | None) -> Iterator[None]:
    """What goes wrong in it is a ModelError that names the model."""
    import torch
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ModelError(f"model {config.model!r} does not fit on {device}: {error}") from error
    except (OSError, ValueError, ImportError, AttributeError) as error:
        raise ModelError(f"cannot load model {config.model!r}: {error}") from error


def ready(model: torch.nn.Module, device: str) -> torch.nn.Module:
    """`model` on the device, for inference."""
    return model.to(device).eval()


def torch_dtype(name: DType, device: str) -> torch.dtype:
    """The number type that `name` means on a device: "auto" is float32 on a CPU, else bfloat16."""
    import torch

    if name != "auto":
        return {
            "float32": torch.float32,
            "bfloat16": torch.bfloat16,
            "float16": torch.float16,
        }[name]
    if not device.startswith("cuda"):
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
