"""Three ways to run a model, with the same results, from the fastest to the most general.

- `one_pass`: prefix, four questions and their number trees in one sequence under a block mask.
- `prefix_cache`: the prefix once, then each question and its numbers after the cached keys and
  values; for attention that does not accept such a mask (flash kernels, sliding windows).
- `four_passes`: plain sequences, no mask, no positions, no cache; for everything else, and the
  reference that the others are tested against.

Each takes a batch of B rows and returns logits (B, M, N, V): for each of M metrics and N tree nodes
those of the V tokens of the vocabulary.
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
    """All metrics and nodes in one forward pass. The mask has four dimensions: transformers'
    `masking_utils` passes such a mask through unchanged."""
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
        attention_mask=block_mask(batch.mask, suffix, model.dtype),
        position_ids=torch.cat([positions, tail], dim=-1),
        logits_to_keep=read.flatten(),
        use_cache=False,
        **_pad_per_token(batch.per_token, ids.shape[1]),
        **batch.pixels,
    )
    logits: Tensor = out.logits
    by_metric: Tensor = logits.unflatten(1, read.shape)
    return by_metric


def prefix_cache(model: Any, batch: Batch, template: Template, suffix: Suffix) -> Tensor:
    """The prefix once; for each metric its question after the cache, then the chains of number
    tokens, all chains of a row at once, each after a copy of that."""
    import torch

    device = batch.ids.device
    rows = len(batch.ids)
    positions, after = prefix_positions(model, batch)
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
            cache.batch_repeat_interleave(count)
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
            logits = _plain_logits(model, batch, row, question, chains)  # (K, 1 + D, V)
            root = logits[None, :1, 0]  # (1, 1, V)
            results.append(torch.cat([root, at_nodes(logits[:, 1:], 1, count, nodes)], dim=1))
    by_row: Tensor = torch.cat(results).unflatten(0, (-1, len(template.questions)))
    return by_row


PASSES: dict[str, Pass] = {
    "one_pass": one_pass,
    "prefix_cache": prefix_cache,
    "four_passes": four_passes,
}


def fastest_exact_pass(
    model: Any,
    batch: Batch,
    template: Template,
    suffix: Suffix,
    candidates: Sequence[str] = tuple(PASSES),
) -> str:
    """The first of `candidates` (keys of PASSES) that gives the same result as plain sequences on
    each row of `batch`; "four_passes" if none does.

    Compared where a wrong mask or position shows most: at the last question, along the longest
    chain of number tokens. Costs two forward passes and one plain sequence for each row.
    """
    import torch

    chains, nodes = chains_of(template, batch.ids.device)
    longest = [(k, d) for k, d in nodes if k == len(chains) - 1]
    compared = [0] + [1 + nodes.index(node) for node in longest]
    expected = torch.cat(
        [
            _plain_logits(model, batch, row, template.questions[-1], chains[-1:])
            for row in range(len(batch.ids))
        ]
    ).softmax(-1, dtype=torch.float32)
    tolerance = 1e-4 if model.dtype == torch.float32 else 3e-2  # of a probability
    for name in candidates:
        try:
            logits = PASSES[name](model, batch, template, suffix)[:, -1, compared]
        except Exception as error:
            log.info("%s does not work with this model: %s", name, error)
            continue
        gap = float((logits.softmax(-1, dtype=torch.float32) - expected).abs().max())
        if gap <= tolerance:
            return name
        log.info("%s is off by a probability of %.3g with this model", name, gap)
    return "four_passes"


def _plain_logits(
    model: Any, batch: Batch, row: int, question: tuple[int, ...], chains: Tensor
) -> Tensor:
    """Logits (K, 1 + D, V) at the question's end and along each of the chains (K, D), from K whole
    sequences of one row's prefix, the question and a chain."""
    import torch

    count, depth = chains.shape
    mask = batch.mask[row]
    prompt = torch.cat([batch.ids[row, mask], torch.tensor(question, device=chains.device)])
    ids = torch.cat([prompt.expand(count, -1), chains], dim=1)
    per_token = {name: value[row : row + 1, mask] for name, value in batch.per_token.items()}
    out = model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        logits_to_keep=depth + 1,
        use_cache=False,
        **{
            name: value.expand(count, -1)
            for name, value in _pad_per_token(per_token, ids.shape[1]).items()
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

    core = core_of(model)
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


def core_of(model: Any) -> Any:
    """The model without its head; also within the wrapper that `peft` puts around a model, whose
    own attribute `model` is the model itself."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return base.model


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


def _pad_per_token(per_token: dict[str, Tensor], length: int) -> dict[str, Tensor]:
    import torch

    return {
        name: torch.nn.functional.pad(value, (0, length - value.shape[1]))
        for name, value in per_token.items()
    }
