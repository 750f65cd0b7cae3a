"""Loads a multimodal language model (MLM); an adapter is merged into its base model."""

from __future__ import annotations

from udfs.core import peft_adapters
from udfs.core.checked_weights import load_checked
from udfs.models.model_config import ModelConfig
from udfs.models.model_files import find_files
from udfs.models.torch_setup import for_inference, load_context, torch_dtype
from udfs.scoring import prompts
from udfs.scoring.mlm_scorer import Scorer


def load(config: ModelConfig, device: str = "cpu", threads: int | None = None) -> Scorer:
    """Load an MLM, its processor and its prompt into a new scorer. Raises ModelError."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    with load_context(config, device, threads):
        files = find_files(config.model, config.revision)
        folder, options = files.weights, files.load_options
        prompt = prompts.load_prompt(files.prompt)
        dtype = torch_dtype(config.dtype, device)
        model = load_checked(AutoModelForImageTextToText, folder, dtype=dtype, **options)
        if files.adapter is not None:
            model = peft_adapters.merged(model, files.adapter)
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False, **options)
        return Scorer(
            for_inference(model, device),
            processor,
            prompt,
            how=config.how,
            max_caption_tokens=config.max_caption_tokens,
            batch_rows=config.batch_rows,
            batch_tokens=config.batch_tokens,
        )
