"""What losses are computed from: a student, its examples, and what is known of them beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from udfs import captions
from udfs.training import sampling
from udfs.training.assumed import Assumed
from udfs.training.cross_fitting import DualEncoder, dual_encoder
from udfs.training.examples import Examples
from udfs.training.features import Words
from udfs.training.looks import looks
from udfs.training.recipe import Recipe, Stage
from udfs.training.sentences import Sentences
from udfs.training.student import Student
from udfs.training.towers import joined
from udfs.training.tree import TokenTree

if TYPE_CHECKING:
    from torch import Tensor


class Inputs:
    """`features` (N, V, I, F) is what the projector reads of V views of each image (a GPU that has
    the room holds all of them); `words`, captions' codes, `sentences`, what a sentence encoder says
    of each of `texts`, `assumed`, who assumes scores by what (`Stage.assumed_by`), and
    `dual_encoder`, who is imitated, are set where a stage needs them.
    """

    def __init__(self, student: Student, examples: Examples, features: Any, recipe: Recipe) -> None:
        self.student = student
        self.examples = examples
        self.features = features
        self._at_hand = _at_hand(features, student.model.device)
        self.recipe = recipe
        self.texts = examples.texts()
        self.text_rows = {text: row for row, text in enumerate(self.texts)}
        self.words: Words | None = None
        self.sentences: NDArray[np.float32] | None = None
        self.assumed: dict[str, Assumed] = {}
        self.dual_encoder: DualEncoder | None = None
        if any(s.weights.assume and not s.assumes_by_meaning for s in recipe.stages):
            self.assumed["words"] = Assumed(examples, recipe.seed)
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

    def matching(self) -> list[tuple[int, int]]:
        """The (image, text) pairs that match, by index."""
        return [(image, self.text_rows[text]) for image, text in self.examples.pairs()]

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

    def read_sentences(self, folder: Path) -> None:
        """Let the sentence encoder read all captions, if a stage needs that, and fit what goes by
        it; what it says, and how images look to who is imitated, is kept in `folder`."""
        encoder, stages = self.recipe.sentence_encoder, self.recipe.stages
        device = str(self.student.model.device)
        if any(stage.reads_sentences for stage in stages):
            limit = max(stage.caption_tokens for stage in stages if stage.reads_sentences)
            decode = self.student.processor.tokenizer.decode
            texts = [decode(self.encode(text, limit)) for text in self.texts]
            self.sentences = Sentences(folder, encoder, texts, device)(texts)
        assumes = any(stage.assumes_by_meaning for stage in stages)
        imitates = any(stage.weights.imitate for stage in stages)
        if assumes or imitates:
            meanings = Sentences(folder, encoder, self.texts, device)
        if assumes:
            self.assumed["meaning"] = Assumed(self.examples, self.recipe.seed, meanings)
        if imitates:
            told = joined(meanings.depths(self.texts))
            seen = joined(looks(folder, self.student, self.examples.images))
            self.dual_encoder = dual_encoder(told, seen, self.matching(), self.examples.groups)

    def temperature(self, stage: Stage) -> float:
        """The stage's, or else the recipe's."""
        return stage.temperature or self.recipe.temperature


def _at_hand(features: Any, device: Any) -> Any:
    """The features on a GPU, if they take at most half of the memory that is free there: to stack
    and send them would take longer than a step computes."""
    import torch

    if device.type != "cuda" or features.nbytes > torch.cuda.mem_get_info(device)[0] // 2:
        return features
    return torch.from_numpy(np.array(features)).to(device)
