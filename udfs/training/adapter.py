"""Base model in, student out; student in, adapter folder or whole model folder out.

An adapter folder is what `peft` writes: low-rank weights and the projector in one safetensors file,
beside the prompt with which it was trained (`udfs.scoring.prompts`). `udfs.models` scores with
either kind.
"""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

from udfs.core import peft_adapters
from udfs.scoring import chat_template, prompts
from udfs.training.recipe import Recipe
from udfs.training.student import LINEAR, PROJECTOR, Student


def student(
    folder: str, recipe: Recipe, device: str = "cpu", revision: str | None = None
) -> Student:
    """Load a base model (local folder or hub id) and make it ready to learn.

    With an adapter, the language model's linear layers get low-rank weights and the projector is
    learned whole; without one, language model and projector are. The vision tower is frozen.
    """
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    where = {"revision": revision} if revision else {}
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False, **where)
    model = AutoModelForImageTextToText.from_pretrained(
        folder,
        dtype=getattr(torch, recipe.dtype),
        trust_remote_code=False,
        use_safetensors=True,
        **where,
    )
    if not hasattr(model.model, PROJECTOR):
        raise ValueError(
            f"{type(model).__name__} has no {PROJECTOR}: fine-tuning works with LLaVA, InternVL and"
            " models built like them"
        )
    torch.nn.Module.to(model, device)
    return Student(
        adapted(model, recipe), processor, chat_template.build(processor, recipe.prompt), recipe
    )


def adapted(model: Any, recipe: Recipe) -> Any:
    """`model` with the recipe's adapter, or itself where the recipe has none."""
    if recipe.lora is None:
        return model
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(recipe.seed)  # peft draws the adapter's first weights
    config = LoraConfig(
        r=recipe.lora.rank,
        lora_alpha=recipe.lora.alpha,
        lora_dropout=recipe.lora.dropout,
        target_modules=LINEAR,
        modules_to_save=[PROJECTOR],
    )
    wrapped = get_peft_model(model, config)
    for module in wrapped.modules():
        # Activations stay in the precision that autocast chooses; peft would turn each into
        # float32 and back (peft.helpers.disable_input_dtype_casting does this, for a `with`).
        if hasattr(module, "cast_input_dtype_enabled"):
            setattr(module, "cast_input_dtype_enabled", False)  # noqa: B010 (no attribute to mypy)
    return wrapped


def save(student: Student, folder: str | Path, base: str, revision: str | None = None) -> None:
    """Write the adapter (in bfloat16: half the bytes) or, without one, the whole model, with
    processor and prompt, into `folder`.

    `base` and its hub commit `revision` are what the adapter's configuration names as its base.
    """
    import torch
    from safetensors.torch import load_file, save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    prompts.save_prompt(student.recipe.prompt, folder)
    if student.recipe.lora is None:
        student.model.save_pretrained(folder)
        student.processor.save_pretrained(folder)
        return
    config = student.model.peft_config["default"]
    config.base_model_name_or_path, config.revision = base, revision
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft looks for the base's config on the hub
        student.model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's own: `report.py` writes a true one
    file = folder / "adapter_model.safetensors"
    weights = {name: value.to(torch.bfloat16) for name, value in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})
    file.chmod(0o644)  # safetensors makes what only its owner can read


def merge_folder(base: str, adapter: str | Path, output: str | Path, revision: str | None) -> None:
    """Write base (local folder or hub id) and adapter as one ordinary model folder, in the
    precision in which the base is stored."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    where = {"revision": revision} if revision else {}
    model = AutoModelForImageTextToText.from_pretrained(
        base, dtype="auto", trust_remote_code=False, use_safetensors=True, **where
    )
    peft_adapters.merged(model, adapter).save_pretrained(output)
    processor = AutoProcessor.from_pretrained(base, trust_remote_code=False, **where)
    processor.save_pretrained(output)
    for name in (prompts.PROMPT_FILE, "README.md"):
        if (Path(adapter) / name).is_file():
            shutil.copy(Path(adapter) / name, output)
