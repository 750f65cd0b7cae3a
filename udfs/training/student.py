"""The model that learns: a base model, a low-rank adapter, its projector, and a forward pass over
token trees.

Weights that learn are kept in float32 and used in the recipe's precision (autocast); frozen ones
are stored in it. The vision tower stays frozen: what the projector reads of an image is the same in
each step and can be kept (`features.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from udfs.scoring.chat_template import Template
from udfs.training import length_batches
from udfs.training.recipe import Recipe
from udfs.training.token_tree import ROOT, TokenTree

if TYPE_CHECKING:
    from torch import Tensor

PAD_TO = 16
"""Sequences are padded to a multiple of this: few shapes, which memory and kernels like."""
PROJECTOR = "multi_modal_projector"
LINEAR = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"


@dataclass(frozen=True)
class Head:
    """The tokens before the caption: `before` the image's, the image's own, and those after."""

    before: tuple[int, ...]
    image: tuple[int, ...]
    after: tuple[int, ...]

    def tokens(self) -> tuple[int, ...]:
        """All of them."""
        return self.before + self.image + self.after


class Student:
    """A base model made ready to learn.

    `model` is an image-text-to-text model with a projector (LLaVA, InternVL and their like),
    `template` what `udfs.scoring.chat_template.build` made of its processor and the recipe's
    prompt.
    """

    def __init__(self, model: Any, processor: Any, template: Template, recipe: Recipe) -> None:
        self.template = template
        self.processor = processor
        self.recipe = recipe
        self.model = model
        self.head = _head(processor, template)
        self.trained = _trainable(model, recipe)

    def learning(self, frozen_layers: int) -> list[Any]:
        """Let the weights learn that are not frozen (`Stage.frozen_layers`), and return them."""
        still = [f".language_model.layers.{i}." for i in range(frozen_layers)]
        still += [f"{PROJECTOR}."] if frozen_layers else []
        names = {id(weight): name for name, weight in self.model.named_parameters()}
        for weight in self.trained:
            weight.requires_grad_(not any(part in names[id(weight)] for part in still))
            weight.grad = None  # of an earlier stage: it would count when gradients are clipped
        return [weight for weight in self.trained if weight.requires_grad]

    @property
    def base(self) -> Any:
        """The model under the adapter's wrapper."""
        unwrap = getattr(self.model, "get_base_model", None)
        return unwrap() if unwrap else self.model

    @property
    def core(self) -> Any:
        """Vision tower, projector and language model, without the head."""
        return self.base.model

    @property
    def mixed(self) -> bool:
        """Whether it learns in mixed precision: autocast to bfloat16."""
        return self.recipe.dtype == "bfloat16"

    def autocast(self) -> AbstractContextManager[None]:
        """The precision of a training step, for what runs beside one."""
        import torch

        return torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.mixed)

    @property
    def lm_head(self) -> Any:
        """From hidden states to logits."""
        return self.model.get_output_embeddings()

    def embeddings(self, ids: Tensor) -> Tensor:
        """The language model's embeddings (..., D) of tokens, without gradient."""
        found: Tensor = self.core.language_model.embed_tokens(ids)
        return found.detach()

    def image_tokens(self, features: Tensor) -> Tensor:
        """Projector over what it reads of B images: (B, I, F) -> (B, I, D)."""
        tokens: Tensor = getattr(self.core, PROJECTOR)(features)
        return tokens

    def hidden(self, trees: Sequence[TokenTree], images: Tensor) -> Tensor:
        """Last hidden states (B, L, D) of B trees. `images` (B, I, D) takes the place of image
        placeholders. Trees of like length run together."""
        pieces = length_batches.alike([len(tree) for tree in trees])
        found = [self._run([trees[row] for row in piece], images[piece]) for piece in pieces]
        return length_batches.together(found, pieces)

    def _run(self, trees: Sequence[TokenTree], images: Tensor) -> Tensor:
        """The same in one piece."""
        import torch

        length = -(-max(len(tree) for tree in trees) // PAD_TO) * PAD_TO
        fill = self.template.after[-1] if self.template.after else 0
        ids = np.full((len(trees), length), fill, dtype=np.int64)
        positions = np.zeros((len(trees), length), dtype=np.int64)
        seen = np.zeros((len(trees), 1, length, length), dtype=np.bool_)
        for row, tree in enumerate(trees):
            n = len(tree)
            ids[row, :n] = tree.ids
            positions[row, :n] = tree.depths
            seen[row, 0, :n, :n] = tree.visible()
        seen[:, 0, np.arange(length), np.arange(length)] = True  # padding sees itself: no NaN
        device = self.model.device
        tokens = torch.from_numpy(ids).to(device)
        embedded = self.embeddings(tokens)
        place = (tokens == self.image_token)[..., None]
        embedded = embedded.masked_scatter(place, images.to(embedded.dtype))
        mask = torch.zeros(seen.shape, dtype=embedded.dtype, device=device)
        mask.masked_fill_(~torch.from_numpy(seen).to(device), torch.finfo(embedded.dtype).min)
        out = self.core.language_model(
            inputs_embeds=embedded,
            attention_mask=mask,
            position_ids=torch.from_numpy(positions).to(device),
            use_cache=False,
        )
        last: Tensor = out.last_hidden_state
        return last

    @property
    def image_token(self) -> int:
        """The placeholder's id."""
        return self.head.image[0]

    def with_image(self) -> tuple[TokenTree, int]:
        """A tree that holds the tokens before a caption, and the last one's index."""
        tree = TokenTree()
        return tree, tree.extend(ROOT, self.head.tokens())


def _head(processor: Any, template: Template) -> Head:
    """Encode the head with a small picture to see where the image's tokens stand."""
    from PIL import Image

    out = processor(
        text=[template.head],
        images=[[Image.new("RGB", (32, 32))]],
        return_tensors="np",
        add_special_tokens=template.begins,
    )
    ids = [int(i) for i in out["input_ids"][0]]
    token = processor.tokenizer.convert_tokens_to_ids(str(processor.image_token))
    first, count = ids.index(token), ids.count(token)
    if ids[first : first + count] != [token] * count:
        raise ValueError("the image's tokens do not stand together: this model cannot be packed")
    return Head(tuple(ids[:first]), tuple(ids[first : first + count]), tuple(ids[first + count :]))


def _trainable(model: Any, recipe: Recipe) -> list[Any]:
    """The parameters that learn, in float32."""
    import torch

    for name, weight in model.named_parameters():
        if recipe.lora is None:  # with an adapter, peft has chosen
            weight.requires_grad_(f".{PROJECTOR}." in name or ".language_model." in name)
        if weight.requires_grad:
            weight.data = weight.data.to(torch.float32)
    return [weight for weight in model.parameters() if weight.requires_grad]
