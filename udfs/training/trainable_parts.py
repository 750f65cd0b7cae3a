"""The parts of a model (language model, projector, vision tower), found without knowing its family,
and made ready to train: a low-rank adapter, all weights, or none."""

from __future__ import annotations

from typing import Any

from udfs.training.settings import Parts, TrainingSettings

PROJECTORS = (
    "multi_modal_projector",  # LLaVA's kind, InternVL, Gemma 3, Mistral 3, Molmo 2, PaliGemma
    "connector",  # Idefics3, SmolVLM
    "merger",  # Qwen2-VL, Qwen2.5-VL, Qwen3-VL
    "deepstack_merger_list",  # Qwen3-VL
    "aligner",  # DeepSeek-VL
    "embed_vision",  # Gemma 4
)
"""What families call the layers between vision tower and language model."""

ROUTERS = ("gate", "router")
"""Linear layers that choose experts, which adapters leave alone."""


class PartsError(ValueError):
    """The model does not have the parts that are to be trained."""


def part_of(model: Any) -> dict[str, str]:
    """Name of each module that holds weights of its own -> "language", "projector" or "vision".

    Raises PartsError for a model without a language model or a projector.
    """
    names = {id(module): name for name, module in model.named_modules()}
    decoder = names.get(id(model.get_decoder()))
    head = names.get(id(model.get_output_embeddings()))
    if not decoder or not head:
        raise PartsError(f"{type(model).__name__} has no language model that can be told apart")
    parts = {}
    for name, module in model.named_modules():
        if not any(True for _ in module.parameters(recurse=False)):
            continue
        if f"{name}.".startswith((f"{decoder}.", f"{head}.")):
            parts[name] = "language"
        elif set(name.split(".")) & set(PROJECTORS):
            parts[name] = "projector"
        else:
            parts[name] = "vision"
    if "projector" not in parts.values():
        raise PartsError(
            f"{type(model).__name__} has no projector between a vision tower and a language model"
            f" (none of {', '.join(PROJECTORS)}): it cannot be fine-tuned here"
        )
    return parts


def prepare(model: Any, settings: TrainingSettings) -> Any:
    """`model` ready to train, within peft's wrapper where an adapter is wanted.

    Weights that are trained become float32, whatever the others are. Raises PartsError.
    """
    import torch

    parts, wanted = part_of(model), settings.train
    if wanted.adapter:
        model = _with_adapter(model, parts, settings)
    for name, weight in model.named_parameters():
        part = _part_of_weight(name, parts)
        kind = getattr(wanted, part)
        adapted = ".lora_" in name
        saved = ".modules_to_save." in name or not wanted.adapter
        weight.requires_grad_(kind == "lora" if adapted else kind == "full" and saved)
        if weight.requires_grad:
            weight.data = weight.data.to(torch.float32)
    return model


def _with_adapter(model: Any, parts: dict[str, str], settings: TrainingSettings) -> Any:
    import torch
    from peft import LoraConfig, get_peft_model

    head = model.get_output_embeddings()
    targets = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and module is not head
        and name.rpartition(".")[2] not in ROUTERS
        and getattr(settings.train, parts.get(name, ""), None) == "lora"
    ]
    torch.manual_seed(settings.seed)  # peft draws the adapter's first weights
    config = LoraConfig(
        r=settings.lora.rank,
        lora_alpha=settings.lora.alpha,
        lora_dropout=settings.lora.dropout,
        target_modules=targets,
        modules_to_save=_saved_whole(model, parts, settings.train) or None,
    )
    return get_peft_model(model, config)


def _saved_whole(model: Any, parts: dict[str, str], wanted: Parts) -> list[str]:
    """The largest modules that belong to one part that is trained in full: what an adapter's folder
    keeps whole."""
    import torch

    found: list[str] = []
    for name, module in model.named_modules():
        if not name or any(name.startswith(f"{outer}.") for outer in found):
            continue
        inside = {part for inner, part in parts.items() if f"{inner}.".startswith(f"{name}.")}
        if len(inside) != 1 or getattr(wanted, inside.pop()) != "full":
            continue
        if isinstance(module, torch.nn.ModuleList):  # peft wraps none: its members come next
            continue
        found.append(name)
    return found


def _part_of_weight(name: str, parts: dict[str, str]) -> str:
    """The part of a weight by its name, within or without peft's wrapper."""
    name = name.removeprefix("base_model.model.")
    for inserted in (".base_layer", ".modules_to_save.default", ".original_module"):
        name = name.replace(inserted, "")
    module = name.rpartition(".")[0]
    if ".lora_" in name:
        module = name[: name.index(".lora_")]
    while module and module not in parts:
        module = module.rpartition(".")[0]
    return parts[module] if module else "vision"  # e.g. LLaVA-NeXT's image_newline
