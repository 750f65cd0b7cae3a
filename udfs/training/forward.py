"""A batch of packed items through a model, to the logits at the columns that are read.

`packed_logits` runs one sequence an item under its block mask. `separate_logits` runs each branch
of an item's tree as a plain sequence, for models whose attention takes no such mask: the same
logits, at the price of computing the image once a branch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from udfs.scoring.packing import Batch
from udfs.scoring.passes.forward_passes import prefix_positions
from udfs.scoring.token_tree import ROOT

if TYPE_CHECKING:
    from torch import Tensor

BRANCHES = 16  # plain sequences that run side by side
NARROW_WINDOW = 4096  # tokens: attention that sees fewer may not see a whole sequence


def packed_logits(model: Any, unwrapped: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Logits (R, N, V) at the nodes of the number trees and (T, V) before the tokens of reasons.

    `model` is what a step runs (maybe wrapped for several processes), `unwrapped` the model itself.
    """
    import torch

    visible = batch["visible"]
    dtype = unwrapped.get_input_embeddings().weight.dtype
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    mask = mask.masked_fill_(~visible, torch.finfo(dtype).min)[:, None]
    rows, columns = _reads(batch)
    with read_at(unwrapped, rows, columns):
        out = model(
            input_ids=batch["input_ids"],
            attention_mask=mask,
            position_ids=_positions(unwrapped, batch),
            use_cache=False,
            **batch["per_token"],
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
    tokens, real = (
        torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True)
        for sequences in ([ids[b] for b in branches], [torch.ones_like(ids[b]) for b in branches])
    )
    behind = tokens.shape[1] - head
    per_token = {
        name: torch.nn.functional.pad(value[row, :head], (0, behind)).expand(tokens.shape)
        for name, value in batch["per_token"].items()
    }
    pixels = {
        name: torch.cat([value.split(batch["parts"][name])[row]] * len(branches))
        for name, value in batch["pixels"].items()
        if batch["parts"][name][row]
    }
    rows, columns = torch.tensor(positions, device=ids.device).T
    with read_at(unwrapped, rows, columns):
        out = model(input_ids=tokens, attention_mask=real, use_cache=False, **per_token, **pixels)
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


def can_pack(model: Any, batch: dict[str, Any]) -> bool:
    """Whether packed items give this model's plain answers: refused by structure where a block mask
    cannot say what the model's own does, else tried on a batch (`model` is not wrapped)."""
    import torch

    text = model.config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ()) - {"full_attention"}
    window = getattr(text, "sliding_window", None) or NARROW_WINDOW
    if kinds - {"sliding_attention"} or (kinds and window < NARROW_WINDOW):
        return False  # linear attention, convolutions; windows
    if "token_type_ids" in batch["per_token"]:
        return False  # the family makes its mask of them: an image's tokens see one another
    try:
        with torch.no_grad(), _first_layers_in_float32(model):
            packed, plain = (
                torch.cat([part.flatten(0, -2) for part in run(model, model, batch)]).softmax(-1)
                for run in (packed_logits, separate_logits)
            )
    except (TypeError, ValueError, RuntimeError, IndexError):
        return False
    return float((packed - plain).abs().max()) <= 1e-4


@contextmanager
def _first_layers_in_float32(model: Any) -> Iterator[None]:
    """The model with two layers, in float32: half precision rounds by more than many faults, and a
    whole model may not fit in float32."""
    decoder, training = model.get_decoder(), model.training
    layers, weights = decoder.layers, [*model.parameters(), *model.buffers()]
    dtypes = [weight.dtype for weight in weights]
    decoder.layers = layers[:2]
    model.eval().float()
    try:
        yield
    finally:
        decoder.layers = layers
        for weight, dtype in zip(weights, dtypes, strict=True):
            weight.data = weight.data.to(dtype)
        model.train(training)
