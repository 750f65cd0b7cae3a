"""What losses are computed from: a student, its examples, and what it sees of their images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from udfs.inputs import captions
from udfs.training import sampling
from udfs.training.examples import Examples
from udfs.training.recipe import Recipe, Stage
from udfs.training.student import Student
from udfs.training.token_tree import TokenTree

if TYPE_CHECKING:
    from torch import Tensor


class Inputs:
    """`features` (N, V, I, F) is what the projector reads of V views of each image (a GPU that has
    the room holds all of them)."""

    def __init__(self, student: Student, examples: Examples, features: Any, recipe: Recipe) -> None:
        self.student = student
        self.examples = examples
        self._at_hand = _at_hand(features, student.model.device)
        self.recipe = recipe
        self._encoder = captions.encoder(student.processor)
        self._tokens: dict[tuple[str, int], list[int]] = {}

    def encode(self, text: str, limit: int) -> list[int]:
        """A caption's tokens, at most `limit`, without special tokens, as the scorer makes them."""
        known = self._tokens.get((text, limit))
        if known is None:
            known, _ = self._encoder(captions.clean(text), limit)
            self._tokens[text, limit] = known
        return known

    def tell(self, tree: TokenTree, last: int, text: str, stage: Stage) -> int:
        """Hang a caption, and what follows every caption, below `last`; return the last index."""
        tip = tree.extend(last, self.encode(text, stage.caption_tokens))
        return tree.extend(tip, self.student.template.after)

    def ask(self, tree: TokenTree, tip: int, metric: int, stage: Stage) -> list[int]:
        """Hang a question below a caption's `tip`; return the columns where its number is read: all
        of a number's, or with `sampled_numbers` the first."""
        template = self.student.template
        question = template.questions[metric]
        if stage.sampled_numbers:
            return [tree.extend(tip, question)]
        return tree.ask(tip, question, template.tree)

    def images(self, rows: Sequence[int], stage: Stage, turn: int) -> Tensor:
        """Image tokens (B, I, D) of images by index, each in one of its views: `turn` by `turn` of
        the stage another one."""
        import torch

        draw = sampling.rng(self.recipe.seed, stage.name, turn, "views")
        views = draw.integers(self.recipe.views, size=len(rows))
        if isinstance(self._at_hand, torch.Tensor):
            read = self._at_hand[list(rows), views.tolist()]
        else:
            chosen = zip(rows, views, strict=True)
            read = torch.from_numpy(np.stack([self._at_hand[row, view] for row, view in chosen]))
        return self.student.image_tokens(read.to(self.student.model.device).float())


def _at_hand(features: Any, device: Any) -> Any:
    """The features on a GPU, if they take at most half of the memory that is free there: to stack
    and send them would take longer than a step computes."""
    import torch

    if device.type != "cuda" or features.nbytes > torch.cuda.mem_get_info(device)[0] // 2:
        return features
    return torch.from_numpy(np.array(features)).to(device)
