"""Three ways through a model to the same numbers, from fast to general.

- `one_pass`: prefix, four questions and their number trees in one sequence under a block mask.
- `prefix_cache`: the prefix once, then each question and its numbers behind the cached keys and
  values; for attention that takes no such mask (flash kernels, sliding windows).
- `four_passes`: plain sequences, no mask, no positions, no cache; for everything else, and the
  reference that the others are tested against.

Each takes a batch of B rows and returns logits (B, M, N, V): for each of M metrics and N tree nodes
the scores of the V tokens that may come next.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from udfs.scoring.chat_template import Template
from udfs.scoring.packing import Batch, Suffix, block_mask

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

Pass = Callable[[Any, Batch, Template, Suffix], "Tensor"]


def one_pass(model: Any, batch: Batch, template: Template, suffix: Suffix) -> Tensor:
    """All metrics and nodes from one forward pass (docs of 4-D masks: transformers'
    `masking_utils`, which hands a mask of four dimensions through as it is)."""
    import torch

    device = batch.ids.device
    rows, prefix = batch.ids.shape
    positions, after = prefix_positions(model, batch)
    tail = after[:, None] + suffix.offsets.to(device)
    if positions.ndim == 3:  # (3, B, P): time, height, width, alike for text
        tail = tail.expand(len(positions), -1, -1)
    ids = torch.cat([batch.ids, suffix.ids.to(device).expand(rows, -1)], dim=1)
    read = (prefix + suffix.read).to(device)
    out = model(
        input_ids=ids,
        attention_mask=block_mask(batch.real, suffix, model.dtype),
        position_ids=torch.cat([positions, tail], dim=-1),
        logits_to_keep=read.flatten(),
        use_cache=False,
        **_extended(batch.per_token, ids.shape[1]),
        **batch.pixels,
    )
    logits: Tensor = out.logits
    by_metric: Tensor = logits.unflatten(1, read.shape)
    return by_metric


def prefix_cache(model: Any, batch: Batch, template: Template, suffix: Suffix) -> Tensor:
    """The prefix once; for each metric its question behind the cache, then the chains of number
    tokens, all of a row at once, behind a copy of that."""
    import torch

    device = batch.ids.device
    rows = len(batch.ids)
    positions, after = prefix_positions(model, batch)
    chains, where = chains_of(template, device)
    prefix = cache_of_prefix(model, batch, positions)
    metrics = []
    for question in template.questions:
        cache = copy.deepcopy(prefix)
        ids = torch.tensor(question, device=device).expand(rows, -1)
        real = torch.cat([batch.real, torch.ones_like(ids, dtype=torch.bool)], dim=1)
        asked = continue_behind(model, ids, real, after, cache, positions.ndim)
        logits = asked.logits[:, -1:]  # (B, 1, V): the root
        if chains.shape[1]:
            count, depth = chains.shape
            cache = asked.past_key_values
            cache.batch_repeat_interleave(count)
            real = torch.cat([real, torch.ones_like(ids[:, :1].expand(-1, depth))], dim=1).bool()
            told = continue_behind(
                model,
                chains.repeat(rows, 1),
                real.repeat_interleave(count, dim=0),
                (after + len(question)).repeat_interleave(count),
                cache,
                positions.ndim,
            )
            logits = torch.cat([logits, at_nodes(told.logits, rows, count, where)], dim=1)
        metrics.append(logits)
    return torch.stack(metrics, dim=1)


def four_passes(model: Any, batch: Batch, template: Template, suffix: Suffix) -> Tensor:
    """Row by row and metric by metric, the whole sequence once for each chain of number tokens."""
    import torch

    chains, where = chains_of(template, batch.ids.device)
    count = len(chains)
    results = []
    for row in range(len(batch.ids)):
        for question in template.questions:
            logits = _plain(model, batch, row, question, chains)  # (K, 1 + D, V)
            root = logits[None, :1, 0]  # (1, 1, V)
            results.append(torch.cat([root, at_nodes(logits[:, 1:], 1, count, where)], dim=1))
    by_row: Tensor = torch.cat(results).unflatten(0, (-1, len(template.questions)))
    return by_row


PASSES: dict[str, Pass] = {
    "one_pass": one_pass,
    "prefix_cache": prefix_cache,
    "four_passes": four_passes,
}


def fastest_true_pass(
    model: Any,
    batch: Batch,
    template: Template,
    suffix: Suffix,
    ways: Sequence[str] = tuple(PASSES),
) -> str:
    """The first of `ways` (of PASSES) that gives what the plain sequence gives, on each row of
    `batch`; "four_passes" where none does.

    Looked at where a wrong mask or position shows most: the last question, down the longest chain
    of number tokens. Costs two forward passes and one plain sequence a row.
    """
    import torch

    chains, where = chains_of(template, batch.ids.device)
    longest = [(k, d) for k, d in where if k == len(chains) - 1]
    nodes = [0] + [1 + where.index(place) for place in longest]
    truth = torch.cat(
        [
            _plain(model, batch, row, template.questions[-1], chains[-1:])
            for row in range(len(batch.ids))
        ]
    ).softmax(-1, dtype=torch.float32)
    tolerance = 1e-4 if model.dtype == torch.float32 else 3e-2  # of a probability
    for how in ways:
        try:
            found = PASSES[how](model, batch, template, suffix)[:, -1, nodes]
        except Exception as error:
            log.info("%s does not work with this model: %s", how, error)
            continue
        gap = float((found.softmax(-1, dtype=torch.float32) - truth).abs().max())
        if gap <= tolerance:
            return how
        log.info("%s is off by a probability of %.3g with this model", how, gap)
    return "four_passes"


def _plain(model: Any, batch: Batch, row: int, question: tuple[int, ...], chains: Tensor) -> Tensor:
    """Logits (K, 1 + D, V) at the question's end and along each of the chains (K, D), from K whole
    sequences that hold nothing but one row's prefix, the question and a chain."""
    import torch

    count, depth = chains.shape
    real = batch.real[row]
    asked = torch.cat([batch.ids[row, real], torch.tensor(question, device=chains.device)])
    ids = torch.cat([asked.expand(count, -1), chains], dim=1)
    per_token = {name: value[row : row + 1, real] for name, value in batch.per_token.items()}
    out = model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        logits_to_keep=depth + 1,
        use_cache=False,
        **{
            name: value.expand(count, -1)
            for name, value in _extended(per_token, ids.shape[1]).items()
        },
        **{
            name: torch.cat([value.split(batch.parts[name])[row]] * count)
            for name, value in batch.pixels.items()
        },
    )
    logits: Tensor = out.logits
    return logits


def cache_of_prefix(model: Any, batch: Batch, positions: Tensor) -> Any:
    """Keys and values of the batch's prefixes."""
    out = model(
        input_ids=batch.ids,
        attention_mask=batch.real.long(),
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

    if hasattr(model.model, "get_rope_index"):  # Qwen2-VL's kind: positions in 3 dimensions
        positions, deltas = model.model.get_rope_index(
            input_ids=batch.ids,
            attention_mask=batch.real.long(),
            image_grid_thw=batch.pixels.get("image_grid_thw"),
            mm_token_type_ids=batch.per_token.get("mm_token_type_ids"),
        )
        after = positions.masked_fill(~batch.real, -1).amax(dim=(0, 2)) + 1
        return positions, after
    positions = torch.arange(batch.ids.shape[1], device=batch.ids.device)
    return positions.expand(batch.ids.shape), batch.real.sum(dim=1)


def continue_behind(
    model: Any, ids: Tensor, real: Tensor, start: Tensor, cache: Any, ndim: int
) -> Any:
    """Run `ids` (B, L) behind `cache`, at positions that begin with `start` (B,). `real` marks what
    is seen of cache and `ids`; `ndim` is the number of dimensions of the model's positions."""
    import torch

    positions = start[:, None] + torch.arange(ids.shape[1], device=ids.device)
    if ndim == 3:
        positions = positions.expand(3, -1, -1)
    return model(
        input_ids=ids,
        attention_mask=real.long(),
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
    )


def chains_of(template: Template, device: Any) -> tuple[Tensor, list[tuple[int, int]]]:
    """Number tokens as plain sequences (K, D), shorter ones filled up with zeros at the end where
    nothing reads them; and for each node but the root its place (chain, depth) in them."""
    import torch

    chains = template.tree.chains()
    depth = max(len(chain) for chain in chains)
    nodes = template.tree.nodes
    ids = torch.zeros(len(chains), depth, dtype=torch.long, device=device)
    place: dict[int, tuple[int, int]] = {}
    for k, chain in enumerate(chains):
        for d, node in enumerate(chain):
            ids[k, d] = nodes[node].token
            place[node] = (k, d)
    return ids, [place[i] for i in range(1, len(nodes))]


def at_nodes(logits: Tensor, rows: int, count: int, where: list[tuple[int, int]]) -> Tensor:
    """Pick (rows, N - 1, V) from the chains' logits (rows * K, D, V)."""
    by_row: Tensor = logits.unflatten(0, (rows, count))
    return by_row[:, [k for k, _ in where], [d for _, d in where]]


def _extended(per_token: dict[str, Tensor], length: int) -> dict[str, Tensor]:
    import torch

    return {
        name: torch.nn.functional.pad(value, (0, length - value.shape[1]))
        for name, value in per_token.items()
    }
