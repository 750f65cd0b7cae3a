"""What a step computes: trees of tokens out of a plan, one or two forward passes, losses.

A module, so that data-parallel wrappers see one forward pass whatever a stage computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch  # noqa: TID253 - a torch module; only `train.py` imports it, where training begins

from udfs import captions
from udfs.metrics import METRICS
from udfs.prompts import CHAIN_OF_THOUGHT
from udfs.training import losses, sampling, sentences
from udfs.training.attention import Kept, looks, means
from udfs.training.examples import Examples
from udfs.training.features import Words, codes
from udfs.training.numbers import (
    begun_odds,
    log_odds,
    log_probabilities,
    path,
    path_log_probabilities,
    soft_targets,
)
from udfs.training.plans import Asked, Plan
from udfs.training.priming import prime
from udfs.training.reads import Reads
from udfs.training.recipe import Recipe, Stage
from udfs.training.sampling import Ranked
from udfs.training.student import Student
from udfs.training.tree import TokenTree

if TYPE_CHECKING:
    from torch import Tensor

PRIMED = 64
"""Pairs a batch in which priming reads."""
ITM, ODF = METRICS.index("itm"), METRICS.index("odf")


class Objective(torch.nn.Module):
    """The losses of a stage's plan. `features` (N, I, F) is what the projector reads of each image;
    `words`, captions' codes, is set before a stage that needs them (`align`, hints)."""

    def __init__(
        self,
        student: Student,
        examples: Examples,
        features: Any,
        recipe: Recipe,
    ) -> None:
        super().__init__()
        self.model = student.model  # registered: its weights are this module's
        self.student = student
        self.examples = examples
        self.features = features
        self.recipe = recipe
        self._encoder = captions.encoder(student.processor)
        self._tokens: dict[tuple[str, int], list[int]] = {}
        self.words: Words | None = None
        self._sentences: Any = None
        self._kept = Kept()
        count = len(student.core.language_model.layers)
        if any(max(s.attend_depths) >= count for s in recipe.stages if s.weights.attend):
            raise ValueError(f"attend_depths: the language model has {count} layers")

    def forward(self, plan: Plan, stage: Stage) -> dict[str, Tensor]:
        """Each loss of the stage that `plan` has rows for, unweighted."""
        found: dict[str, Tensor] = {}
        if stage.weights.distill and plan.texts:
            found["distill"] = self._distill(plan.texts, stage)
        if stage.weights.align and plan.pairs:
            found["align"] = self._align(plan.pairs, stage)
        if stage.weights.contrast and plan.pairs:
            found["contrast"] = self._contrast(plan.pairs, stage)
        if stage.weights.attend and plan.pairs:
            found["attend"] = self._attend(plan.pairs, stage)
        if plan.ranked and stage.weights.rank:
            found["rank"] = self._rank(plan.ranked, stage, plan.hint)
        if plan.scored and (stage.weights.score or stage.weights.reason):
            found |= self._score(plan.scored, stage, plan.turn)
        return found

    def encode(self, text: str, limit: int) -> list[int]:
        """A caption's tokens, at most `limit`, without special tokens, as the scorer makes them."""
        known = self._tokens.get((text, limit))
        if known is None:
            known, _ = self._encoder(captions.clean(text), limit)
            self._tokens[text, limit] = known
        return known

    def images(self, rows: Sequence[int]) -> Tensor:
        """Image tokens (B, I, D) of images by index."""
        device = self.student.model.device
        read = torch.from_numpy(np.stack([self.features[row] for row in rows])).to(device)
        return self.student.image_tokens(read.float())

    def distill_from(self, folder: Path) -> None:
        """Let the sentence encoder read all captions, as far as a stage reads them; what it says is
        kept in `folder`."""
        limit = max(s.caption_tokens for s in self.recipe.stages if s.weights.distill)
        decode = self.student.processor.tokenizer.decode
        self._texts = self.examples.texts()
        texts = [decode(self.encode(text, limit)) for text in self._texts]
        self._sentences = sentences.cached(folder, self.recipe.sentence_encoder, texts)

    def _distill(self, rows: Sequence[int], stage: Stage) -> Tensor:
        captions = [self.encode(self._texts[row], stage.caption_tokens) for row in rows]
        found = codes(self.student, captions, self.recipe.align_layers)
        found = (found - found.mean(dim=0)) / (found.std(dim=0) + 1e-6)
        wanted = torch.from_numpy(self._sentences[list(rows)]).to(found.device)
        return losses.likeness_loss(found, wanted, self._temperature(stage))

    def _align(self, pairs: Sequence[tuple[int, str]], stage: Stage) -> Tensor:
        """The mean image token against the caption's code, which the language model has halfway up:
        the residual stream carries directions upwards, so that what the projector writes is what
        upper layers read."""
        images = self.images([image for image, _ in pairs])
        seen, told, _ = self._standardized(images, pairs)
        a = torch.nn.functional.normalize(seen, dim=-1)
        return losses.info_nce(a @ told.T / self._temperature(stage), _same(pairs))

    def _attend(self, pairs: Sequence[tuple[int, str]], stage: Stage) -> Tensor:
        captions = [self.encode(text, stage.caption_tokens) for _, text in pairs]
        kept = self._kept if stage.frozen_layers >= max(stage.attend_depths) else None
        shown = [image for image, _ in pairs]
        odds = looks(self.student, shown, self.images, captions, stage.attend_depths, kept)
        same, temperature = _same(pairs), self._temperature(stage)
        found = [losses.info_nce(each / temperature, same) for each in odds]
        return torch.stack(found).mean()

    @torch.no_grad()
    def prime(self, pairs: Sequence[tuple[int, str]], stage: Stage) -> None:
        """Let `attend` begin with what these pairs tell (`priming.py`)."""
        found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in stage.attend_depths]
        for start in range(0, len(pairs), PRIMED):
            part = pairs[start : start + PRIMED]
            captions = [self.encode(text, stage.caption_tokens) for _, text in part]
            shown, depths = [image for image, _ in part], stage.attend_depths
            read = means(self.student, shown, self.images, captions, depths, self._kept)
            for each, pair in zip(found, read, strict=True):
                each.append(pair)
        for depth, parts in zip(stage.attend_depths, found, strict=True):
            told, seen = (torch.cat(part) for part in zip(*parts, strict=True))
            prime(self.student, depth, told, seen)

    def _temperature(self, stage: Stage) -> float:
        return stage.temperature or self.recipe.temperature

    def _standardized(
        self, images: Tensor, pairs: Sequence[tuple[int, str]]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mean image tokens (B, D) and, of unit length, the captions' words (B, D) as deviations
        from the mean of all words, both in units of the words' spread (D,), which is the third.

        What all captions share (most of it is the few huge numbers that language models keep in
        their residual stream) is not for images to write: norms would scale what tells one image
        from another down to a hundredth.
        """
        if self.words is None:
            raise ValueError("`align` and hints need the captions' features")
        mean, spread = (torch.from_numpy(x).to(images.device) for x in self.words.scale)
        words = torch.from_numpy(np.stack([self.words[pair] for pair in pairs])).to(images.device)
        seen = images.float().mean(dim=1) / spread
        return seen, torch.nn.functional.normalize((words - mean) / spread, dim=-1), spread

    def _contrast(self, pairs: Sequence[tuple[int, str]], stage: Stage) -> Tensor:
        student = self.student
        after = student.template.after
        images = self.images([image for image, _ in pairs])
        seen, told = [], []
        for _, text in pairs:
            tree, last = student.with_image()
            tree.extend(last, after)
            seen.append(tree)
            tree, last = student.without_image()
            self._tell(tree, last, text, stage)
            told.append(tree)
        a = _ends(student.hidden(seen, images, stage.contrast_layers), seen)
        b = _ends(student.hidden(told, None, stage.contrast_layers), told)
        # Centred: what all images (all captions) share is most of a hidden state and says nothing.
        normalize = torch.nn.functional.normalize
        a, b = (normalize(x.float() - x.float().mean(dim=0), dim=-1) for x in (a, b))
        return losses.info_nce(a @ b.T / self._temperature(stage), _same(pairs))

    def _rank(self, ranked: Sequence[Ranked], stage: Stage, hint: float) -> Tensor:
        student, reads = self.student, Reads()
        trees: list[TokenTree] = []
        fitting: list[int] = []  # ITM of captions that match ...
        strange: list[int] = []  # ... and of those that do not
        better: list[int] = []  # ODF of such with an altered copy ...
        worse: list[int] = []  # ... and of the copy
        for row, image in enumerate(ranked):
            tree, last = student.with_image()
            trees.append(tree)

            def read(text: str, *metrics: int, row: int = row, last: int = last) -> list[int]:
                tree = trees[row]
                tip = self._tell(tree, last, text, stage)
                questions, numbers = student.template.questions, student.template.tree
                if stage.sampled_numbers:
                    return [reads.number(row, [tree.extend(tip, questions[m])]) for m in metrics]
                return [reads.number(row, tree.ask(tip, questions[m], numbers)) for m in metrics]

            strange.extend(read(text, ITM)[0] for text in image.rivals)
            for text, changed in zip(image.own, image.altered, strict=True):
                # Cut first: a change beyond the cut would be none.
                copy = changed and self.encode(changed, stage.caption_tokens)
                if copy and copy != self.encode(text, stage.caption_tokens):
                    itm, odf = read(text, ITM, ODF)
                    better.append(odf)
                    worse.append(read(changed or "", ODF)[0])
                else:
                    (itm,) = read(text, ITM)
                fitting.append(itm)
        images = self.images([image.image for image in ranked])
        if not (
            better or strange
        ):  # nothing to rank, but processes that train together all need a gradient
            return 0 * images.sum()
        if hint:
            images = self._hinted(images, [(image.image, image.own[0]) for image in ranked], hint)
        hidden = student.hidden(trees, images)
        if stage.sampled_numbers:
            roots = hidden[reads.rows, [column for (column,) in reads.columns]]
            odds = begun_odds(roots, student.lm_head.weight, student.template.tree)
        else:
            odds = log_odds(self._read(hidden, reads))
        # A caption that matches its image is better than one that does not match another: a score
        # has to rank all pairs, not an image's captions alone.
        found = [losses.rank_loss(odds[fitting][:, None], odds[strange])] if strange else []
        if better:
            found.append(losses.rank_loss(odds[better], odds[worse]))
        return torch.stack(found).mean()

    def _hinted(self, images: Tensor, pairs: Sequence[tuple[int, str]], hint: float) -> Tensor:
        """Image tokens (B, I, D) whose mean is moved `hint` (0..1) of the way to the caption's
        words, at its own length: what a perfect projector would write. So the comparison is learned
        on easy cases, before hard ones."""
        seen, told, spread = self._standardized(images, pairs)
        told = told * seen.norm(dim=-1, keepdim=True)
        hinted: Tensor = images + (hint * (told - seen) * spread)[:, None]
        return hinted

    def _score(self, scored: Sequence[Asked], stage: Stage, turn: int) -> dict[str, Tensor]:
        student, reads = self.student, Reads()
        trees: list[TokenTree] = []
        targets: list[float] = []
        thinks = self.recipe.style == CHAIN_OF_THOUGHT  # its numbers come after reasons, always
        rows: dict[int, int] = {}  # image -> its tree: captions of one image share it
        for index, metrics in scored:
            pair = self.examples.scored[index]
            if pair.image not in rows:
                rows[pair.image] = len(trees)
                trees.append(student.with_image()[0])
            row = rows[pair.image]
            tree = trees[row]
            tip = self._tell(tree, len(student.head.tokens()) - 1, pair.caption, stage)
            for m in metrics:
                reason = self._reason(pair.reasons[m]) if thinks or stage.weights.reason else []
                if stage.sampled_numbers and not reason:
                    drawn = self._drawn(pair.scores[m], (stage.name, turn, index, m))
                    asked = tree.extend(tip, student.template.questions[m])
                    reads.steps(row, asked, path(drawn, student.template.tree), tree)
                else:
                    self._ask(tree, tip, row, m, round(pair.scores[m]), reason, reads)
                targets.append(pair.scores[m])
        hidden = student.hidden(trees, self.images(list(rows)))
        found: dict[str, Tensor] = {}
        if stage.weights.score and stage.sampled_numbers:
            found["score"] = self._stepwise(hidden, reads, targets)
        elif stage.weights.score:
            log_p = self._read(hidden, reads)
            wanted = torch.tensor(targets, device=log_p.device)
            found["score"] = losses.score_loss(
                log_p, wanted, self.recipe.soft_target, self.recipe.distance
            )
        if not found and not reads.reason_targets:
            found["reason"] = 0 * hidden.sum()
        if reads.reason_targets and stage.weights.reason:
            at = hidden[reads.reason_rows, reads.reason_columns]
            right = torch.tensor(reads.reason_targets, device=at.device)
            logits = student.lm_head(at.to(student.lm_head.weight.dtype)).float()
            found["reason"] = torch.nn.functional.cross_entropy(logits, right)
        return found

    def _stepwise(self, hidden: Tensor, reads: Reads, targets: Sequence[float]) -> Tensor:
        """The score loss, exact for the first digit, and for the rest of one number drawn."""
        head, tree = self.student.lm_head.weight, self.student.template.tree
        roots = hidden[reads.rows, [columns[0] for columns in reads.columns]]
        scores = torch.tensor(targets, device=hidden.device)
        how = self.recipe
        loss = losses.begun_loss(roots, head, tree, scores, how.soft_target, how.distance)
        if reads.step_rows:
            at = hidden[reads.step_rows, reads.step_columns]
            log_p = path_log_probabilities(at, reads.step_nodes, reads.step_tokens, head, tree)
            loss = loss - log_p.sum() / len(targets)
        return loss

    def _drawn(self, score: float, key: tuple[object, ...]) -> int:
        """A number drawn from the soft target around a score."""
        p = soft_targets(torch.tensor(score), self.recipe.soft_target).double().numpy()
        draw = sampling.rng(self.recipe.seed, *key, "number")
        return int(draw.choice(len(p), p=p / p.sum()))

    def _tell(self, tree: TokenTree, last: int, text: str, stage: Stage) -> int:
        """Hang a caption, and what follows every caption, below `last`; return the last index."""
        tip = tree.extend(last, self.encode(text, stage.caption_tokens))
        return tree.extend(tip, self.student.template.after)

    def _ask(
        self,
        tree: TokenTree,
        tip: int,
        row: int,
        metric: int,
        score: int,
        reason: list[int],
        reads: Reads,
    ) -> None:
        """Hang one question with its number and reason below `tip`, in the recipe's style."""
        template = self.student.template
        question = template.questions[metric]
        if self.recipe.style == CHAIN_OF_THOUGHT and reason:
            asked = tree.extend(tip, question)
            end = tree.extend(asked, reason)
            reads.reason(row, asked, reason, end)
            reads.number(row, tree.ask(end, (), template.tree))
            return
        columns = tree.ask(tip, question, template.tree)
        reads.number(row, columns)
        if reason:
            number = [token for _, token in template.tree.steps[score]]
            last = tree.extend(columns[0], number)
            reads.reason(row, last, reason, tree.extend(last, reason))

    def _reason(self, text: str) -> list[int]:
        """A reason's tokens, in the recipe's style; one that is too long for scoring is cut."""
        if not text:
            return []
        tokenizer, thinking = self.student.processor.tokenizer, self.student.template.thinking
        if thinking is not None:
            ids = tokenizer(f"{text}\n", add_special_tokens=False)["input_ids"]
            return thinking.closed(ids)
        ids = tokenizer(f"\n{text}", add_special_tokens=False)["input_ids"]
        return [*ids, tokenizer.eos_token_id]

    def _read(self, hidden: Tensor, reads: Reads) -> Tensor:
        """Log probabilities (R, 101) of the numbers to be read."""
        rows = torch.tensor(reads.rows, device=hidden.device)
        columns = torch.tensor(reads.columns, device=hidden.device)
        at = hidden[rows[:, None], columns]  # (R, N, D)
        head = self.student.lm_head
        return log_probabilities(head(at.to(head.weight.dtype)), self.student.template.tree)


def _ends(hidden: Tensor, trees: Sequence[TokenTree]) -> Tensor:
    """The hidden state (B, D) at each tree's last token."""
    last = torch.tensor([len(tree) - 1 for tree in trees], device=hidden.device)
    return hidden[torch.arange(len(trees), device=hidden.device), last]


def _same(pairs: Sequence[tuple[int, str]]) -> Tensor:
    """(B, B): pairs with the same image or the same caption are no rivals."""
    images = np.array([image for image, _ in pairs])
    texts = np.array([text for _, text in pairs], dtype=object)
    return torch.from_numpy(
        (images[:, None] == images[None]) | (texts[:, None] == texts[None]).astype(bool)
    )
