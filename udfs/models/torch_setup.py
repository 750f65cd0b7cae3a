"""What loading any model has in common: device, dtype, and errors that name the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from udfs.core.error_lines import one_line
from udfs.core.weight_files import WeightsError
from udfs.models.model_config import DType, ModelConfig, ModelError

if TYPE_CHECKING:
    import torch


@contextmanager
def load_context(config: ModelConfig, device: str, threads: int | None) -> Iterator[None]:
    """Set the number of CPU threads, and turn errors inside the `with` block into a ModelError of
    one line that names the model.

    All errors: a folder that someone else made can bring out any of them in the libraries that read
    it. What a bug of this project raised stays in the chain of errors, which `--debug` prints.
    """
    import torch
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"model {config.model!r} does not fit on {device}: {one_line(error)}"
        ) from error
    except ModelError:
        raise
    except WeightsError as error:  # which names the folder: the model's, or that of its base
        raise ModelError(str(error)) from error
    except BaseException as error:
        # What panics in the libraries written in Rust (tokenizers) is not even an Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ModelError(f"cannot load model {config.model!r}: {one_line(error)}") from error


def for_inference(model: torch.nn.Module, device: str) -> torch.nn.Module:
    """The model on the device, in evaluation mode."""
    return model.to(device).eval()


def torch_dtype(name: DType, device: str) -> torch.dtype:
    """The dtype that `name` means on a device: "auto" is float32 on a CPU and bfloat16 (else
    float16) on a GPU."""
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
