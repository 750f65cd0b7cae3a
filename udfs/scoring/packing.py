"""One sequence for one pair: a prefix (image and caption), then four questions with number trees.

    [ prefix of the row, padded | question 1, its tree | ... | question 4, its tree ]

Prefixes are padded on the right to the longest of the batch, so that the suffix stands in the same
columns for every row and is computed once a model. A block mask lets each question see the prefix
and itself, and each node of a tree the prefix, its question and its ancestors; positions restart
after the row's own prefix. So no token ever sees padding, another question or a neighbour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from udfs.scoring.chat_template import Template

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Row:
    """One pair, prepared: `ids` (P,) the prefix's tokens; `per_token` other outputs of the
    processor with one value a token, each (P,), zero beyond the head; `pixels` the image tensors,
    whose first dimension counts images, tiles or patches."""

    ids: Tensor
    per_token: dict[str, Tensor]
    pixels: dict[str, Tensor]


@dataclass(frozen=True)
class Batch:
    """B rows: `ids` (B, P) padded on the right, `real` (B, P) true where not padding, `parts` how
    many images, tiles or patches each row has in each of `pixels`."""

    ids: Tensor
    real: Tensor
    per_token: dict[str, Tensor]
    pixels: dict[str, Tensor]
    parts: dict[str, list[int]]


@dataclass(frozen=True)
class Suffix:
    """What follows every prefix, S tokens in all, for M metrics with N tree nodes each.

    `ids` (S,), `offsets` (S,) positions counted from the prefix's end, `visible` (S, S) who sees
    whom within the suffix, `read` (M, N) the columns whose logits decide at each node.
    """

    ids: Tensor
    offsets: Tensor
    visible: Tensor
    read: Tensor


def build_suffix(template: Template) -> Suffix:
    """Lay the four questions and their trees side by side."""
    import torch

    nodes = template.tree.nodes
    ids: list[int] = []
    offsets: list[int] = []
    sees: list[set[int]] = []  # for each column the columns that it sees
    read: list[list[int]] = []
    for question in template.questions:
        start = len(ids)
        for i, token in enumerate(question):
            ids.append(token)
            offsets.append(i)
            sees.append(set(range(start, start + i + 1)))
        columns = [len(ids) - 1]  # the root is decided at the question's last token
        for node in nodes[1:]:
            parent = columns[node.parent]
            columns.append(len(ids))
            sees.append(sees[parent] | {len(ids)})
            ids.append(node.token)
            offsets.append(len(question) + node.depth - 1)
        read.append(columns)
    visible = torch.zeros(len(ids), len(ids), dtype=torch.bool)
    for column, seen in enumerate(sees):
        visible[column, sorted(seen)] = True
    return Suffix(torch.tensor(ids), torch.tensor(offsets), visible, torch.tensor(read))


def collate(rows: list[Row], length: int, device: Any, dtype: Any) -> Batch:
    """Pad prefixes to `length` on the right (with each row's own last token, which nothing sees)
    and stack the image tensors; floating-point pixels take the model's dtype."""
    import torch

    ids = torch.stack([_extend(row.ids, length, int(row.ids[-1])) for row in rows])
    lengths = torch.tensor([len(row.ids) for row in rows])
    per_token = {
        name: torch.stack([_extend(row.per_token[name], length, 0) for row in rows]).to(device)
        for name in rows[0].per_token
    }
    pixels = {name: _stack([row.pixels[name] for row in rows]) for name in rows[0].pixels}
    return Batch(
        ids=ids.to(device),
        real=(torch.arange(length)[None] < lengths[:, None]).to(device),
        per_token=per_token,
        pixels={
            name: value.to(device, dtype if value.is_floating_point() else None)
            for name, value in pixels.items()
        },
        parts={name: [len(row.pixels[name]) for row in rows] for name in rows[0].pixels},
    )


def _extend(values: Tensor, length: int, fill: int) -> Tensor:
    import torch

    return torch.nn.functional.pad(values, (0, length - len(values)), value=fill)


def _stack(tensors: list[Tensor]) -> Tensor:
    """Concatenate over the first dimension, zero-padding the others where pictures differ in tiles
    or size (models tell such padding from pixels by masks or sizes that come along)."""
    import torch

    sizes = torch.tensor([tensor.shape for tensor in tensors]).amax(dim=0).tolist()
    padded = []
    for tensor in tensors:
        pad = [
            n
            for have, want in zip(reversed(tensor.shape), reversed(sizes), strict=True)
            for n in (0, want - have)
        ]
        pad[-1] = 0  # the first dimension is the one that grows
        padded.append(torch.nn.functional.pad(tensor, pad) if any(pad) else tensor)
    return torch.cat(padded)


def block_mask(real: Tensor, suffix: Suffix, dtype: Any) -> Tensor:
    """Additive attention mask (B, 1, P+S, P+S): 0 where seen, the dtype's minimum where not."""
    import torch

    rows, prefix = real.shape
    total = prefix + len(suffix.ids)
    seen = torch.zeros(rows, total, total, dtype=torch.bool, device=real.device)
    causal = torch.ones(prefix, prefix, dtype=torch.bool, device=real.device).tril()
    seen[:, :prefix, :prefix] = causal & real[:, None, :]
    seen[:, prefix:, :prefix] = real[:, None, :]
    seen[:, prefix:, prefix:] = suffix.visible.to(real.device)
    seen |= torch.eye(total, dtype=torch.bool, device=real.device)  # padding sees itself: no NaN
    mask = torch.zeros(seen.shape, dtype=dtype, device=real.device)
    return mask.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]
