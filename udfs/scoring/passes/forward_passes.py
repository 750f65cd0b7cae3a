"""Four ways to run a model, with the same results, from the fastest to the most general.

- `one_pass`: prefix, four questions and their number trees in one sequence under a block mask.
- `prefix_cache`: the prefix once, then each question and its numbers after copies of the cached
  keys, values and states; for models that do not take such a mask (linear attention, convolutions,
  flash kernels).
- `question_passes`: as `one_pass`, each question with a prefix of its own; for prompts that are
  bidirectional, question included (PaliGemma).
- `four_passes`: plain sequences, no mask, no positions, no cache; for everything else, and the
  reference that the others are tested against (`pass_selection.py`).

Each takes a batch of B rows and returns logits (B, M, N, V): for each of M metrics and N tree nodes
those of the V tokens of the vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from udfs.scoring.chat_template import Template
from udfs.scoring.packing import Batch, Suffix, build_suffix, picture_of
from udfs.scoring.passes.attention_masks import extended_types, packed_masks, unwrapped

if TYPE_CHECKING:
    from torch import Tensor

Pass = Callable[[Any, Batch, Template, Suffix], "Tensor"]


def one_pass(model: Any, batch: Batch, template: Template, suffix: Suffix) -> Tensor:
    """All metrics and nodes in one forward pass. The mask has four dimensions: transformers'
    `masking_utils` passes such a mask through unchanged. Raises MaskError."""
    import torch

    device, suffix = batch.ids.device, suffix.to(batch.ids.device)
    rows, prefix = batch.ids.shape
    positions, after = prefix_positions(model, batch)
    tail = after[:, None] + suffix.offsets
    if positions.ndim == 3:  # (3, B, P): time, height, width, alike for text
        tail = tail.expand(len(positions), -1, -1)
    read = prefix + suffix.read
    answers = torch.cat([torch.zeros_like(batch.mask[0]), suffix.answers]).expand(rows, -1)
    columns = torch.arange(prefix, device=device).expand(rows, -1)
    order = torch.cat([columns, batch.mask.sum(dim=1, keepdim=True) + suffix.offsets], dim=1)
    present = torch.cat([batch.mask, batch.mask.new_ones(rows, len(suffix.ids))], dim=1)
    related = present[:, :, None] & present[:, None, :]
    related[:, prefix:, prefix:] &= suffix.related
    out = model(
        input_ids=torch.cat([batch.ids, suffix.ids.expand(rows, -1)], dim=1),
        attention_mask=packed_masks(model, batch.per_token, order, answers, related, model.dtype),
        position_ids=torch.cat([positions, tail], dim=-1),
        logits_to_keep=read.flatten(),
        use_cache=False,
        **extended_types(model, batch.per_token, answers),
        **batch.pixels,
    )
    logits: Tensor = out.logits
    by_metric: Tensor = logits.unflatten(1, read.shape)
    return by_metric


def question_passes(model: Any, batch: Batch, template: Template, suffix: Suffix) -> Tensor:
    """One pass for each question: the prefix may see the question, as it does in a plain prompt."""
    import torch

    parts = [build_suffix(replace(template, questions=(each,))) for each in template.questions]
    return torch.cat([one_pass(model, batch, template, part) for part in parts], dim=1)


def prefix_cache(model: Any, batch: Batch, template: Template, suffix: Suffix) -> Tensor:
    """The prefix once; for each metric its question after the cache, then the chains of number
    tokens, all chains of a row at once, each after a copy of that. Prefixes are padded on the left:
    a state that runs through the sequence, or a window, must find no padding within it."""
    import torch

    device = batch.ids.device
    rows = len(batch.ids)
    batch, positions, after = padded_on_the_left(model, batch)
    chains, nodes = chains_of(template, device)
    prefix = cache_of_prefix(model, batch, positions)
    by_metric = []
    for question in template.questions:
        cache = copy.deepcopy(prefix)
        ids = torch.tensor(question, device=device).expand(rows, -1)
        mask = torch.cat([batch.mask, torch.ones_like(ids, dtype=torch.bool)], dim=1)
        out = run_with_cache(model, ids, mask, after, cache, positions.ndim)
        logits = out.logits[:, -1:]  # (B, 1, V): the root
        if chains.shape[1]:
            count, depth = chains.shape
            cache = out.past_key_values
            cache.reorder_cache(torch.arange(rows, device=device).repeat_interleave(count))
            mask = torch.cat([mask, torch.ones_like(ids[:, :1].expand(-1, depth))], dim=1).bool()
            out = run_with_cache(
                model,
                chains.repeat(rows, 1),
                mask.repeat_interleave(count, dim=0),
                (after + len(question)).repeat_interleave(count),
                cache,
                positions.ndim,
            )
            logits = torch.cat([logits, at_nodes(out.logits, rows, count, nodes)], dim=1)
        by_metric.append(logits)
    return torch.stack(by_metric, dim=1)


def four_passes(model: Any, batch: Batch, template: Template, suffix: Suffix) -> Tensor:
    """Row by row and metric by metric, the whole sequence once for each chain of number tokens."""
    import torch

    chains, nodes = chains_of(template, batch.ids.device)
    count = len(chains)
    results = []
    for row in range(len(batch.ids)):
        for question in template.questions:
            logits = plain_logits(model, batch, row, question, chains)  # (K, 1 + D, V)
            root = logits[None, :1, 0]  # (1, 1, V)
            results.append(torch.cat([root, at_nodes(logits[:, 1:], 1, count, nodes)], dim=1))
    by_row: Tensor = torch.cat(results).unflatten(0, (-1, len(template.questions)))
    return by_row


PASSES: dict[str, Pass] = {
    "one_pass": one_pass,
    "prefix_cache": prefix_cache,
    "question_passes": question_passes,
    "four_passes": four_passes,
}

IN_WORDS = {
    "one_pass": "image, caption and the four questions in one sequence",
    "prefix_cache": "image and caption once, then each question after a copy of the cache",
    "question_passes": "image and caption once for each question",
    "four_passes": "plain sequences, one for each question and number",
    "chain_of_thought": "image and caption once, then a reason for each question, token by token",
}


def plain_logits(
    model: Any, batch: Batch, row: int, question: tuple[int, ...], chains: Tensor
) -> Tensor:
    """Logits (K, 1 + D, V) at the question's end and along each of the chains (K, D), from K whole
    sequences of one row's prefix, the question and a chain."""
    import torch

    count, depth = chains.shape
    mask = batch.mask[row]
    prompt = torch.cat([batch.ids[row, mask], torch.tensor(question, device=chains.device)])
    ids = torch.cat([prompt.expand(count, -1), chains], dim=1)
    per_token = {
        name: value[row : row + 1, mask].expand(count, -1)
        for name, value in batch.per_token.items()
    }
    answers = (torch.arange(ids.shape[1], device=ids.device) >= len(prompt)).expand(count, -1)
    out = model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        logits_to_keep=depth + 1,
        use_cache=False,
        **extended_types(model, per_token, answers),
        **picture_of(batch.pixels, batch.parts, row, count),
    )
    logits: Tensor = out.logits
    return logits


def cache_of_prefix(model: Any, batch: Batch, positions: Tensor) -> Any:
    """Keys and values of the batch's prefixes."""
    out = model(
        input_ids=batch.ids,
        attention_mask=batch.mask.long(),
        position_ids=positions,
        logits_to_keep=1,
        use_cache=True,
        **batch.per_token,
        **batch.pixels,
    )
    return out.past_key_values


def prefix_positions(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Positions of the prefix, (B, P) or (3, B, P), and the first one after it, (B,)."""
    import torch

    base = unwrapped(model)
    core = getattr(base, "model", base)
    if hasattr(core, "get_rope_index"):  # as in Qwen2-VL: positions in 3 dimensions
        positions, _ = core.get_rope_index(
            input_ids=batch.ids,
            attention_mask=batch.mask.long(),
            image_grid_thw=batch.pixels.get("image_grid_thw"),
            mm_token_type_ids=batch.per_token.get("mm_token_type_ids"),
        )
        after = positions.masked_fill(~batch.mask, -1).amax(dim=(0, 2)) + 1
        return positions, after
    positions = torch.arange(batch.ids.shape[1], device=batch.ids.device)
    return positions.expand(batch.ids.shape), batch.mask.sum(dim=1)


def padded_on_the_left(model: Any, batch: Batch) -> tuple[Batch, Tensor, Tensor]:
    """The batch with the padding before its prefixes, and what `prefix_positions` says of it."""
    import torch

    positions, after = prefix_positions(model, batch)
    length = batch.ids.shape[1]
    columns = torch.arange(length, device=batch.ids.device)
    index = (columns + batch.mask.sum(dim=1, keepdim=True)) % length  # (B, P)

    def roll(values: Tensor) -> Tensor:
        return values.gather(-1, index.expand(values.shape))

    per_token = {name: roll(value) for name, value in batch.per_token.items()}
    rolled = replace(batch, ids=roll(batch.ids), mask=roll(batch.mask), per_token=per_token)
    return rolled, roll(positions), after


def run_with_cache(
    model: Any, ids: Tensor, mask: Tensor, start: Tensor, cache: Any, ndim: int
) -> Any:
    """Run `ids` (B, L) after `cache`, at positions that begin with `start` (B,). `mask` is true for
    what is seen of cache and `ids`; `ndim` is the number of dimensions of the model's positions."""
    import torch

    positions = start[:, None] + torch.arange(ids.shape[1], device=ids.device)
    if ndim == 3:
        positions = positions.expand(3, -1, -1)
    return model(
        input_ids=ids,
        attention_mask=mask.long(),
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
    )


def chains_of(template: Template, device: Any) -> tuple[Tensor, list[tuple[int, int]]]:
    """Number tokens as plain sequences (K, D), padded at the end with zeros that are never read;
    and for each node except the root its index (chain, depth) in them."""
    import torch

    chains = template.tree.chains()
    depth = max(len(chain) for chain in chains)
    nodes = template.tree.nodes
    ids = torch.zeros(len(chains), depth, dtype=torch.long, device=device)
    index: dict[int, tuple[int, int]] = {}
    for k, chain in enumerate(chains):
        for d, node in enumerate(chain):
            ids[k, d] = nodes[node].token
            index[node] = (k, d)
    return ids, [index[i] for i in range(1, len(nodes))]


def at_nodes(logits: Tensor, rows: int, count: int, nodes: list[tuple[int, int]]) -> Tensor:
    """Pick (rows, N - 1, V) from the logits of the chains (rows * K, D, V), for nodes by their
    index as `chains_of` gives it."""
    by_row: Tensor = logits.unflatten(0, (rows, count))
    return by_row[:, [k for k, _ in nodes], [d for _, d in nodes]]
