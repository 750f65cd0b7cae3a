"""Loads a multimodal language model (MLM), with an adapter merged in where it is one."""

from __future__ import annotations

from udfs.core import peft_adapters
from udfs.models.model_config import ModelConfig
from udfs.models.model_files import find_files
from udfs.models.torch_setup import loading, ready, torch_dtype
from udfs.scoring import prompts
from udfs.scoring.mlm_scorer import Scorer


def load(config: ModelConfig, device: str = "cpu", threads: int | None = None) -> Scorer:
    """Load an MLM, its processor and its prompt into a new scorer. Raises ModelError."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    with loading(config, device, threads):
        found = find_files(config.model, config.revision)
        folder, where = found.weights, found.where
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False, **where)
        model = AutoModelForImageTextToText.from_pretrained(
            folder,
            dtype=torch_dtype(config.dtype, device),
            trust_remote_code=False,
            use_safetensors=True,  # pickled weights run code when they are read
            **where,
        )
        if found.adapter is not None:
            model = peft_adapters.merged(model, found.adapter)
        prompt = prompts.load_prompt(found.prompt)
        return Scorer(
            ready(model, device),
            processor,
            prompt,
            how=config.how,
            max_caption_tokens=config.max_caption_tokens,
            batch_rows=config.batch_rows,
            batch_tokens=config.batch_tokens,
        )
