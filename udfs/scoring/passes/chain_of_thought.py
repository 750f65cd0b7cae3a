"""Scores with a chain of thought: for each question the model writes a reason, and the number is
read after it, as in training (`udfs.training.collator`).

The prefix is computed once, and the questions share its keys and values. All rows and questions are
decoded together, greedily, until each has ended its line. A finished line continues as masked
padding, so a reason depends on its pair alone.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from udfs.scoring.chat_template import Template, Thinking
from udfs.scoring.packing import Batch, Suffix
from udfs.scoring.passes.forward_passes import (
    at_nodes,
    cache_of_prefix,
    chains_of,
    prefix_positions,
    run_with_cache,
)

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class _Lines:
    """R lines that are being decoded. `mask` (R, L) is false where the cache holds padding,
    `position` (R,) is that of each line's next token, `logits` (R, V) are those after its last
    token that is not padding."""

    cache: Any
    mask: Tensor
    position: Tensor
    logits: Tensor

    def append(self, model: Any, ids: Tensor, mask: Tensor, ndim: int) -> None:
        """Append one token to each line, (R,), or padding where `mask` (R,) is false."""
        import torch

        self.mask = torch.cat([self.mask, mask[:, None]], dim=1)
        out = run_with_cache(model, ids[:, None], self.mask, self.position, self.cache, ndim)
        self.cache = out.past_key_values
        self.position = self.position + mask
        self.logits = torch.where(mask[:, None], out.logits[:, -1], self.logits)


def chain_of_thought(model: Any, batch: Batch, template: Template, suffix: Suffix) -> Tensor:
    """Logits (B, M, N, V) at the nodes of the number trees after the reasons, in the form that
    every pass in `forward_passes.py` returns."""
    import torch

    if template.thinking is None:
        raise ValueError("this prompt has no chain of thought")
    rows, count = len(batch.ids), len(template.questions)
    positions, after = prefix_positions(model, batch)
    ndim = positions.ndim
    prefix = cache_of_prefix(model, batch, positions)
    lines = _ask(model, prefix, batch, after, template, ndim)
    _write_reasons(model, lines, template.thinking, ndim)
    logits = []
    for m in range(count):  # metric by metric: the chains of a number need copies of the cache
        selected = torch.arange(rows, device=batch.ids.device) * count + m
        logits.append(_number_logits(model, lines, selected, template, ndim))
    return torch.stack(logits, dim=1)


def _ask(
    model: Any, cache: Any, batch: Batch, after: Tensor, template: Template, ndim: int
) -> _Lines:
    """Append all questions to each row's prefix: lines in the order (row, question)."""
    import torch

    device, rows = batch.ids.device, len(batch.ids)
    questions = template.questions
    longest = max(map(len, questions))
    ids = torch.tensor([[*q, *q[-1:] * (longest - len(q))] for q in questions], device=device)
    lengths = torch.tensor([len(q) for q in questions], device=device)
    question_mask = torch.arange(longest, device=device)[None] < lengths[:, None]  # (M, Q)
    cache.batch_repeat_interleave(len(questions))
    mask = torch.cat(
        [batch.mask.repeat_interleave(len(questions), dim=0), question_mask.repeat(rows, 1)], dim=1
    )
    start = after.repeat_interleave(len(questions))
    out = run_with_cache(model, ids.repeat(rows, 1), mask, start, cache, ndim)
    lengths = lengths.repeat(rows)
    last = out.logits[torch.arange(len(lengths), device=device), lengths - 1]
    return _Lines(out.past_key_values, mask, start + lengths, last)


def _write_reasons(model: Any, lines: _Lines, thinking: Thinking, ndim: int) -> None:
    """Decode until each line has its line break."""
    import torch

    line_breaks, end_tokens = (
        torch.tensor(sorted(tokens), device=lines.position.device)
        for tokens in (thinking.line_breaks, thinking.end_tokens)
    )
    is_open = torch.ones(len(lines.position), dtype=torch.bool, device=lines.position.device)
    has_break = ~is_open
    for _ in range(thinking.max_tokens):
        token = lines.logits.argmax(dim=-1)
        is_open = is_open & ~torch.isin(token, end_tokens)
        if not is_open.any():
            break
        lines.append(model, token, is_open, ndim)
        is_last = is_open & torch.isin(token, line_breaks)
        has_break, is_open = has_break | is_last, is_open & ~is_last
    if not has_break.all():
        for newline in thinking.newline:
            lines.append(model, torch.full_like(lines.position, newline), ~has_break, ndim)


def _number_logits(
    model: Any, lines: _Lines, selected: Tensor, template: Template, ndim: int
) -> Tensor:
    """Logits (B, N, V) at the nodes of the number tree after the lines `selected` (B,)."""
    import torch

    root = lines.logits[selected, None]  # (B, 1, V)
    chains, nodes = chains_of(template, selected.device)
    count, depth = chains.shape
    if not depth:
        return root
    cache = copy.deepcopy(lines.cache)
    cache.batch_select_indices(selected.repeat_interleave(count))
    mask = torch.cat([lines.mask[selected], lines.mask.new_ones(len(selected), depth)], dim=1)
    out = run_with_cache(
        model,
        chains.repeat(len(selected), 1),
        mask.repeat_interleave(count, dim=0),
        lines.position[selected].repeat_interleave(count),
        cache,
        ndim,
    )
    return torch.cat([root, at_nodes(out.logits, len(selected), count, nodes)], dim=1)
