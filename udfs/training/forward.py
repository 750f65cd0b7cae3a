"""A batch of packed items through a model, to the logits at the columns that are read.

`packed_logits` runs one sequence an item under its block mask. `separate_logits` runs each branch
of an item's tree as a plain sequence, for models whose attention takes no such mask: the same
logits, at the price of computing the image once a branch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from udfs.scoring.packing import Batch, picture_of
from udfs.scoring.passes.attention_masks import extended_types, packed_masks
from udfs.scoring.passes.forward_passes import prefix_positions
from udfs.scoring.passes.pass_selection import TOLERANCE, first_layers, largest_gap
from udfs.scoring.token_tree import ROOT

if TYPE_CHECKING:
    from torch import Tensor

BRANCHES = 16  # plain sequences that run side by side


def packed_logits(model: Any, unwrapped: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Logits (R, N, V) at the nodes of the number trees and (T, V) before the tokens of reasons.

    `model` is what a step runs (maybe wrapped for several processes), `unwrapped` the model itself.
    """
    rows, columns = _reads(batch)
    with read_at(unwrapped, rows, columns):
        out = model(
            input_ids=batch["input_ids"],
            attention_mask=_masks(unwrapped, batch),
            position_ids=_positions(unwrapped, batch),
            use_cache=False,
            **extended_types(unwrapped, batch["per_token"], batch["answers"]),
            **batch["pixels"],
        )
    return _split(out.logits[0], batch)


def separate_logits(model: Any, unwrapped: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """As `packed_logits`, from plain sequences."""
    import torch

    rows, columns = (reads.tolist() for reads in _reads(batch))
    found: dict[tuple[int, int], Tensor] = {}
    for row, tree in enumerate(batch["trees"]):
        head = range(int(batch["lengths"][row]))
        leaves = tree.leaves() or [ROOT]
        branches = [[*head, *(len(head) + i for i in tree.path(leaf))] for leaf in leaves]
        where: dict[int, tuple[int, int]] = {}  # column -> its first branch, and the position there
        for k, branch in enumerate(branches):
            for position, column in enumerate(branch):
                where.setdefault(column, (k, position))
        wanted = [column for r, column in zip(rows, columns, strict=True) if r == row]
        for start in range(0, len(branches), BRANCHES):
            reads = [c for c in wanted if start <= where[c][0] < start + BRANCHES]
            if reads:
                positions = [(where[c][0] - start, where[c][1]) for c in reads]
                some = branches[start : start + BRANCHES]
                logits = _plain_sequences(model, unwrapped, batch, row, some, positions)
                found |= {(row, c): each for c, each in zip(reads, logits, strict=True)}
    logits = torch.stack([found[read] for read in zip(rows, columns, strict=True)])
    return _split(logits, batch)


def _plain_sequences(
    model: Any,
    unwrapped: Any,
    batch: dict[str, Any],
    row: int,
    branches: list[list[int]],
    positions: list[tuple[int, int]],
) -> Tensor:
    """Logits (R, V) at R positions (branch, position in it) of some branches of an item."""
    import torch

    ids, head = batch["input_ids"][row], int(batch["lengths"][row])
    tokens, real, answers = (
        torch.nn.utils.rnn.pad_sequence([values[b] for b in branches], batch_first=True)
        for values in (ids, torch.ones_like(ids), batch["answers"][row])
    )
    per_token = {
        name: value[row, :head].expand(len(tokens), -1)
        for name, value in batch["per_token"].items()
    }
    types = extended_types(unwrapped, per_token, answers)
    pixels = picture_of(batch["pixels"], batch["parts"], row, len(branches))
    rows, columns = torch.tensor(positions, device=ids.device).T
    with read_at(unwrapped, rows, columns):
        out = model(input_ids=tokens, attention_mask=real, use_cache=False, **types, **pixels)
    logits: Tensor = out.logits[0]
    return logits


@contextmanager
def read_at(model: Any, rows: Tensor, columns: Tensor) -> Iterator[None]:
    """The model's head gets the hidden states at (rows, columns) alone, as one row (1, R, D): a
    large vocabulary is computed where it is read, and what follows the head stays the model's."""

    def pick(_: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0][rows, columns][None], *args[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(pick)
    try:
        yield
    finally:
        hook.remove()


def _reads(batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Rows and columns of all logits that are needed, those of numbers first."""
    import torch

    columns = batch["number_columns"]
    rows = batch["number_rows"].repeat_interleave(columns.shape[1])
    return (
        torch.cat([rows, batch["token_rows"]]),
        torch.cat([columns.flatten(), batch["token_columns"]]),
    )


def _split(logits: Tensor, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    shape = batch["number_columns"].shape
    count = shape.numel()
    return logits[:count].reshape(*shape, logits.shape[-1]), logits[count:]


def _positions(model: Any, batch: dict[str, Any]) -> Tensor:
    """Positions (B, L), or (3, B, L) for Qwen's kind: of the heads as the model counts them, then
    on by depth in the tree."""
    import torch

    lengths, ids = batch["lengths"], batch["input_ids"]
    longest = int(lengths.max())
    real = torch.arange(longest, device=ids.device)[None] < lengths[:, None]
    heads = Batch(
        ids[:, :longest],
        real,
        {name: value[:, :longest] for name, value in batch["per_token"].items()},
        batch["pixels"],
        batch["parts"],
    )
    positions, after = prefix_positions(model, heads)
    behind = after[:, None] + batch["offsets"]
    if positions.ndim == 3:
        behind = behind.expand(len(positions), -1, -1)
    padded = torch.nn.functional.pad(positions, (0, ids.shape[1] - longest))
    return torch.where(torch.nn.functional.pad(real, (0, ids.shape[1] - longest)), padded, behind)


def _masks(model: Any, batch: dict[str, Any]) -> Tensor | dict[str, Tensor]:
    """The masks of packed items, from the model's own for plain sequences."""
    import torch

    lengths = batch["lengths"][:, None]
    columns = torch.arange(batch["offsets"].shape[1], device=lengths.device)
    order = torch.where(columns < lengths, columns, lengths + batch["offsets"])
    dtype = model.get_input_embeddings().weight.dtype
    return packed_masks(model, batch["per_token"], order, batch["answers"], batch["related"], dtype)


def can_pack(model: Any, batch: dict[str, Any]) -> bool:
    """Whether packed items give this model's plain answers: tried on a batch, as scoring does
    (`udfs.scoring.passes.pass_selection`); `model` is not wrapped."""
    import torch

    try:
        with torch.no_grad(), first_layers(model, torch.float32):
            packed, plain = (
                torch.cat([part.flatten(0, -2) for part in run(model, model, batch)])
                for run in (packed_logits, separate_logits)
            )
    except (TypeError, ValueError, RuntimeError, IndexError):
        return False
    return largest_gap(packed, plain) <= TOLERANCE
