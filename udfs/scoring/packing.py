"""Packs a pair into one sequence: a prefix (image and caption), then four questions with trees.

    [ prefix of the row, padded | question 1, its tree | ... | question 4, its tree ]

Prefixes are padded on the right to the longest of the batch, so the suffix is in the same columns
for every row and is built once for each model. A block mask (`passes.attention_masks`) lets each
question see the prefix and itself, and each tree node see the prefix, its question and its
ancestors; positions continue from the end of the row's own prefix. So no token ever sees padding,
another question or another row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from udfs.scoring.chat_template import Template, appended_by
from udfs.scoring.token_tree import ROOT, TokenTree

if TYPE_CHECKING:
    from torch import Tensor


MAX_HEAD_TOKENS = 16_384
PATCH_INDICES = {"image_token_pooling": "pixel_values"}
"""Outputs that point into the patches of all pictures of a batch (Molmo 2), and which tensor holds
those, (crops, patches, ...): they count on from the pictures before."""
NOT_FOR_SCORING = ("input_ids", "attention_mask", "labels")
"""Outputs of a processor that do not describe the picture: PaliGemma's hands out labels unasked."""


@dataclass(frozen=True)
class Row:
    """One prepared pair: `ids` (P,) the prefix's tokens; `per_token` the processor's other outputs
    with one value for each token, each (P,), zero after the head; `pixels` the image tensors, whose
    first dimension counts images, tiles or patches."""

    ids: Tensor
    per_token: dict[str, Tensor]
    pixels: dict[str, Tensor]


@dataclass(frozen=True)
class Batch:
    """B rows: `ids` (B, P) padded on the right, `mask` (B, P) false at padding, `parts` how many
    images, tiles or patches each row has in each of `pixels`."""

    ids: Tensor
    mask: Tensor
    per_token: dict[str, Tensor]
    pixels: dict[str, Tensor]
    parts: dict[str, list[int]]


@dataclass(frozen=True)
class Suffix:
    """The S tokens that follow every prefix, for M metrics with N tree nodes each.

    `ids` (S,); `offsets` (S,) positions counted from the end of the prefix; `related` (S, S) true
    where two tokens share a branch; `answers` (S,) true for numbers' tokens; `read` (M, N) the
    columns with each node's logits.
    """

    ids: Tensor
    offsets: Tensor
    related: Tensor
    answers: Tensor
    read: Tensor

    def to(self, device: Any) -> Suffix:
        """The same on a device."""
        return Suffix(*(getattr(self, field.name).to(device) for field in fields(self)))


def build_suffix(template: Template) -> Suffix:
    """Lay the four questions and their trees side by side."""
    import torch

    tree = TokenTree()
    read = [tree.ask(ROOT, question, template.tree) for question in template.questions]
    return Suffix(
        torch.tensor(tree.ids),
        torch.tensor(tree.depths),
        torch.from_numpy(tree.related()),
        torch.tensor(tree.answers),
        torch.tensor(read),
    )


def encode_head(processor: Any, template: Template, picture: Any) -> Row:
    """What the processor makes of a picture and the text before the caption: a Row without one.

    Raises ValueError for a picture of more than MAX_HEAD_TOKENS, and what the processor raises.
    """
    row = encode(processor, template.head, picture, template.begins)
    if len(row.ids) > MAX_HEAD_TOKENS:
        raise ValueError(f"the picture takes {len(row.ids)} tokens")
    return row


def encode(processor: Any, text: str, picture: Any | None, begins: bool) -> Row:
    """What the processor makes of a text and the picture in it, if there is one: tokens, outputs
    with one value a token, and the rest. `begins`: the tokenizer adds its BOS token.

    A line break that the processor appends (PaliGemma's) is taken off: this text goes on.
    """
    images = None if picture is None else [[picture]]
    out = processor(text=[text], images=images, return_tensors="pt", add_special_tokens=begins)
    ids = out["input_ids"]
    end: int | None = None
    if appended := appended_by(processor):
        end = -len(processor.tokenizer(appended, add_special_tokens=False)["input_ids"])
    per_token: dict[str, Tensor] = {}
    pixels: dict[str, Tensor] = {}
    for name, value in out.items():
        if name not in NOT_FOR_SCORING:
            if value.shape == ids.shape:
                per_token[name] = value[0, :end]
            else:
                pixels[name] = value
    return Row(ids[0, :end], per_token, pixels)


def collate(rows: list[Row], length: int, device: Any, dtype: Any) -> Batch:
    """Pad prefixes to `length` on the right (with each row's last token, which is masked) and stack
    the image tensors; floating-point pixels are converted to the model's dtype."""
    import torch

    ids = torch.stack([_extend(row.ids, length, int(row.ids[-1])) for row in rows])
    lengths = torch.tensor([len(row.ids) for row in rows])
    per_token = {
        name: torch.stack([_extend(row.per_token[name], length, 0) for row in rows]).to(device)
        for name in rows[0].per_token
    }
    pixels = join_pictures([row.pixels for row in rows])
    return Batch(
        ids=ids.to(device),
        mask=(torch.arange(length)[None] < lengths[:, None]).to(device),
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


def join_pictures(pictures: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The image tensors of some rows as those of one batch; a row may lack some or all of them."""
    import torch

    names = dict.fromkeys(name for picture in pictures for name in picture)
    joined = {
        name: stacked([picture[name] for picture in pictures if name in picture]) for name in names
    }
    for name in PATCH_INDICES.keys() & joined.keys():
        shifted, first = [], 0
        for picture in pictures:
            if name in picture:
                shifted.append(_shifted(picture[name], first))
                first += picture[PATCH_INDICES[name]].shape[:2].numel()
        joined[name] = torch.cat(shifted)
    return joined


def picture_of(
    pixels: Mapping[str, Tensor], parts: Mapping[str, list[int]], row: int, copies: int
) -> dict[str, Tensor]:
    """The image tensors of one row of a batch, as often as `copies` says: what `join_pictures` has
    put together, taken apart."""
    import torch

    own = {
        name: value.split(parts[name])[row] for name, value in pixels.items() if parts[name][row]
    }
    for name in PATCH_INDICES.keys() & own.keys():
        patches = PATCH_INDICES[name]
        first = sum(parts[patches][:row]) * pixels[patches].shape[1]
        own[name] = _shifted(own[name], -first)
    return {name: torch.cat([value] * copies) for name, value in own.items()}


def _shifted(indices: Tensor, by: int) -> Tensor:
    """Indices that count from another start; -1 stays what it is, an empty slot."""
    return indices.where(indices < 0, indices + by)


def stacked(tensors: list[Tensor]) -> Tensor:
    """Concatenate along the first dimension, zero-padding the others where pictures differ in tiles
    or size (models recognise such padding by the masks or sizes that come with the pixels)."""
    import torch

    sizes = torch.tensor([tensor.shape for tensor in tensors]).amax(dim=0).tolist()
    padded = []
    for tensor in tensors:
        pad = [
            n
            for size, target in zip(reversed(tensor.shape), reversed(sizes), strict=True)
            for n in (0, target - size)
        ]
        pad[-1] = 0  # the first dimension is not padded: it grows by concatenation
        padded.append(torch.nn.functional.pad(tensor, pad) if any(pad) else tensor)
    return torch.cat(padded)
