"""Priming writes into a layer's adapters the comparison that pairs tell."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_models
import torch
from tiny_examples import recipe

from udfs.training import adapter
from udfs.training.priming import prime

HOW = recipe({"weights": {"attend": 1}})


def pairs(count: int, size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Captions and images (N, D) that both tell of three things, far from their means and in
    directions of their own."""
    fixed, drawn = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)
    told = torch.randn(count, 3, generator=drawn)

    def side() -> torch.Tensor:
        mixed = told @ torch.randn(3, size, generator=fixed)
        mean = 5 * torch.randn(size, generator=fixed)
        return mean + mixed + 0.3 * torch.randn(count, size, generator=drawn)

    return side(), side()


@torch.no_grad()
def test_primed_heads_find_the_image_of_a_caption(tmp_path: Path) -> None:
    student = adapter.student(str(tiny_models.internvl(tmp_path / "model")), HOW)
    attention = student.core.language_model.layers[1].self_attn
    size, groups = attention.q_proj.in_features, attention.k_proj.out_features
    groups //= attention.head_dim

    def share() -> float:
        """Of unseen pairs, how often a caption's own image draws more attention than another."""
        captions, images = pairs(200, size, seed=2)
        query = attention.q_proj(captions)[:, : attention.head_dim]
        logits = query @ attention.k_proj(images)[:, : attention.head_dim].T
        return float((logits.diagonal()[:, None] > logits).float().mean())

    for projection in (attention.q_proj, attention.k_proj):
        projection.base_layer.weight *= 0.01  # a tiny model's are far from those of trained ones
    before = share()
    prime(student, 1, *pairs(500, size, seed=1))
    assert before < 0.7
    after = share()
    assert after > 0.85, (before, after, attention.head_dim)


def test_priming_needs_an_adapter(tmp_path: Path) -> None:
    whole = recipe({"weights": {"attend": 1}}, lora=None)
    student = adapter.student(str(tiny_models.internvl(tmp_path / "model")), whole)
    with pytest.raises(ValueError, match="adapter"):
        prime(student, 1, *pairs(50, student.core.language_model.config.hidden_size, seed=1))


def test_priming_needs_frozen_layers() -> None:
    with pytest.raises(ValueError, match="frozen_layers"):
        recipe({"weights": {"attend": 1}, "attend_depths": [1], "primed": 100})
