"""Scores after a chain of thought: for each question the model writes its reason, then the number
is read behind it, as it was trained (`udfs.training.objective`).

The prefix is computed once and its keys and values are shared by the questions. All rows and
questions write at the same time, each its likeliest token (greedily), until each has ended its
line. A line that is done goes on as padding that nothing sees, so that a reason depends on its pair
alone.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from udfs.scoring.chat_template import Template, Thinking
from udfs.scoring.forward_passes import (
    at_nodes,
    cache_of_prefix,
    chains_of,
    continue_behind,
    prefix_positions,
)
from udfs.scoring.packing import Batch, Suffix

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class _Lines:
    """R lines that are being written. `real` (R, L) marks what the cache holds that is no padding,
    `place` (R,) the position of each line's next token, `logits` (R, V) what may come next behind
    the last real token."""

    cache: Any
    real: Tensor
    place: Tensor
    logits: Tensor

    def write(self, model: Any, ids: Tensor, real: Tensor, ndim: int) -> None:
        """Add one token a line, (R,); where `real` (R,) is false, padding."""
        import torch

        self.real = torch.cat([self.real, real[:, None]], dim=1)
        out = continue_behind(model, ids[:, None], self.real, self.place, self.cache, ndim)
        self.cache = out.past_key_values
        self.place = self.place + real
        self.logits = torch.where(real[:, None], out.logits[:, -1], self.logits)


def chain_of_thought(model: Any, batch: Batch, template: Template, suffix: Suffix) -> Tensor:
    """Logits (B, M, N, V) at the nodes of the number trees behind the reasons, as every pass of
    `forward_passes.py` gives them."""
    import torch

    if template.thinking is None:
        raise ValueError("this prompt has no chain of thought")
    rows, count = len(batch.ids), len(template.questions)
    positions, after = prefix_positions(model, batch)
    ndim = positions.ndim
    prefix = cache_of_prefix(model, batch, positions)
    lines = _ask(model, prefix, batch, after, template, ndim)
    _think(model, lines, template.thinking, ndim)
    metrics = []
    for m in range(count):  # one by one: each number's chains need copies of the cache
        own = torch.arange(rows, device=batch.ids.device) * count + m
        metrics.append(_numbers(model, lines, own, template, ndim))
    return torch.stack(metrics, dim=1)


def _ask(
    model: Any, cache: Any, batch: Batch, after: Tensor, template: Template, ndim: int
) -> _Lines:
    """All questions behind each row's prefix: lines in the order (row, question)."""
    import torch

    device, rows = batch.ids.device, len(batch.ids)
    questions = template.questions
    longest = max(map(len, questions))
    ids = torch.tensor([[*q, *q[-1:] * (longest - len(q))] for q in questions], device=device)
    lengths = torch.tensor([len(q) for q in questions], device=device)
    asked = torch.arange(longest, device=device)[None] < lengths[:, None]  # (M, Q)
    cache.batch_repeat_interleave(len(questions))
    real = torch.cat(
        [batch.real.repeat_interleave(len(questions), dim=0), asked.repeat(rows, 1)], dim=1
    )
    start = after.repeat_interleave(len(questions))
    out = continue_behind(model, ids.repeat(rows, 1), real, start, cache, ndim)
    lengths = lengths.repeat(rows)
    last = out.logits[torch.arange(len(lengths), device=device), lengths - 1]
    return _Lines(out.past_key_values, real, start + lengths, last)


def _think(model: Any, lines: _Lines, thinking: Thinking, ndim: int) -> None:
    """Write until each line has its line break."""
    import torch

    breaks, ends = (
        torch.tensor(sorted(tokens), device=lines.place.device)
        for tokens in (thinking.breaks, thinking.ends)
    )
    is_open = torch.ones(len(lines.place), dtype=torch.bool, device=lines.place.device)
    broken = ~is_open
    for _ in range(thinking.most):
        token = lines.logits.argmax(dim=-1)
        is_open = is_open & ~torch.isin(token, ends)
        if not is_open.any():
            break
        lines.write(model, token, is_open, ndim)
        done = is_open & torch.isin(token, breaks)
        broken, is_open = broken | done, is_open & ~done
    if not broken.all():
        for newline in thinking.newline:
            lines.write(model, torch.full_like(lines.place, newline), ~broken, ndim)


def _numbers(model: Any, lines: _Lines, own: Tensor, template: Template, ndim: int) -> Tensor:
    """Logits (B, N, V) at the nodes of the number tree behind the lines `own` (B,)."""
    import torch

    root = lines.logits[own, None]  # (B, 1, V)
    chains, where = chains_of(template, own.device)
    count, depth = chains.shape
    if not depth:
        return root
    cache = copy.deepcopy(lines.cache)
    cache.batch_select_indices(own.repeat_interleave(count))
    real = torch.cat([lines.real[own], lines.real.new_ones(len(own), depth)], dim=1)
    told = continue_behind(
        model,
        chains.repeat(len(own), 1),
        real.repeat_interleave(count, dim=0),
        lines.place[own].repeat_interleave(count),
        cache,
        ndim,
    )
    return torch.cat([root, at_nodes(told.logits, len(own), count, where)], dim=1)
