"""Loads a dual encoder (CLIP, SigLIP and the like, or the baseline), and detects whether one is."""

from __future__ import annotations

from pathlib import Path

from udfs.baseline import model as baseline_model
from udfs.core.checked_weights import load_checked
from udfs.models.model_config import ModelConfig
from udfs.models.model_files import folder_with, is_folder
from udfs.models.torch_setup import for_inference, load_context, torch_dtype
from udfs.scoring import dual_encoder_scorer
from udfs.scoring.dual_encoder_scorer import DualEncoder
from udfs.starter import model as starter


def load(config: ModelConfig, device: str = "cpu", threads: int | None = None) -> DualEncoder:
    """Load a dual encoder and its processor into a new scorer. Raises ModelError."""
    from transformers import AutoModel, AutoProcessor

    folder, dtype = config.model, torch_dtype(config.dtype, device)
    options = {"revision": config.revision} if config.revision and not is_folder(folder) else {}
    with load_context(config, device, threads):
        if baseline_model.is_baseline(Path(folder)):
            model, processor = baseline_model.load(Path(folder), dtype)
        else:
            model = load_checked(AutoModel, folder, dtype=dtype, **options)
            processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False, **options)
        return DualEncoder(
            for_inference(model, device),
            processor,
            max_caption_tokens=config.max_caption_tokens,
            batch_rows=config.batch_rows,
            batch_tokens=config.batch_tokens,
        )


def is_dual_encoder(model: str, revision: str | None = None) -> bool:
    """Whether the model gives `clip_score` rather than the four metrics; reads only its config."""
    if starter.is_starter(model):
        return False
    folder = folder_with("config.json", model, revision)
    return baseline_model.is_baseline(folder) or dual_encoder_scorer.is_dual_encoder(folder)
