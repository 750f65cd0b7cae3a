"""Losses over what a teacher said: its scores against those that a model reads out, its reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch  # noqa: TID253 - as in objective.py

from udfs.scoring.prompts import CHAIN_OF_THOUGHT
from udfs.training import losses, sampling
from udfs.training.loss_inputs import Inputs
from udfs.training.number_probabilities import (
    begun_odds,
    log_odds,
    log_probabilities,
    path,
    path_log_probabilities,
    soft_targets,
    stand_ins,
)
from udfs.training.read_positions import Reads
from udfs.training.recipe import Stage
from udfs.training.step_plans import Asked
from udfs.training.token_tree import TokenTree

if TYPE_CHECKING:
    from torch import Tensor

REST = 0.1
"""Weight of the part of a number that is drawn, which tells next to nothing of the score: at full
weight its noise is most of the gradient, and training of all layers stood still."""


@dataclass
class Questions:
    """Images with captions that a teacher scored as trees, where to read there, and the scores."""

    images: list[int] = field(default_factory=list)
    trees: list[TokenTree] = field(default_factory=list)
    reads: Reads = field(default_factory=Reads)
    targets: list[float] = field(default_factory=list)


def lay_out(inputs: Inputs, scored: Sequence[Asked], stage: Stage, turn: int) -> Questions:
    """Ask what the teacher was asked, and answer with its reasons where the stage learns them."""
    student, laid = inputs.student, Questions()
    reads, targets = laid.reads, laid.targets
    thinks = inputs.recipe.style == CHAIN_OF_THOUGHT  # its numbers come after reasons, always
    rows: dict[int, int] = {}  # image -> its tree: captions of one image share it
    for index, metrics in scored:
        pair = inputs.examples.scored[index]
        if pair.image not in rows:
            rows[pair.image] = len(laid.trees)
            laid.trees.append(student.with_image()[0])
        row = rows[pair.image]
        tree = laid.trees[row]
        tip = inputs.tell(tree, len(student.head.tokens()) - 1, pair.caption, stage)
        for m in metrics:
            reason = _reason(inputs, pair.reasons[m]) if thinks or stage.weights.reason else []
            if stage.sampled_numbers and not reason:
                number = drawn(inputs, pair.scores[m], (stage.name, turn, index, m))
                asked = tree.extend(tip, student.template.questions[m])
                reads.steps(row, asked, path(number, student.template.tree), tree)
            else:
                _ask(inputs, tree, tip, row, m, round(pair.scores[m]), reason, reads)
            targets.append(pair.scores[m])
    laid.images.extend(rows)
    return laid


def score(inputs: Inputs, laid: Questions, stage: Stage, turn: int) -> dict[str, Tensor]:
    """`score` and `reason`, as far as the stage has them."""
    student, reads, targets = inputs.student, laid.reads, laid.targets
    hidden = student.hidden(laid.trees, inputs.images(laid.images, stage, turn))
    found: dict[str, Tensor] = {}
    if stage.weights.score and stage.sampled_numbers:
        found["score"] = _stepwise(inputs, hidden, reads, targets)
    elif stage.weights.score:
        log_p = read_out(inputs, hidden, reads)
        wanted = torch.tensor(targets, device=log_p.device)
        found["score"] = losses.score_loss(
            log_p, wanted, inputs.recipe.soft_target, inputs.recipe.distance
        )
    if not found and not reads.reason_targets:
        found["reason"] = 0 * hidden.sum()
    if reads.reason_targets and stage.weights.reason:
        at = hidden[reads.reason_rows, reads.reason_columns]
        right = torch.tensor(reads.reason_targets, device=at.device)
        logits = student.lm_head(at.to(student.lm_head.weight.dtype)).float()
        found["reason"] = torch.nn.functional.cross_entropy(logits, right)
    return found


def _stepwise(inputs: Inputs, hidden: Tensor, reads: Reads, targets: Sequence[float]) -> Tensor:
    """The score loss, exact for the first digit, and a little of it for the rest of one number
    drawn."""
    head, tree = inputs.student.lm_head.weight, inputs.student.template.tree
    roots = hidden[reads.rows, [columns[0] for columns in reads.columns]]
    scores = torch.tensor(targets, device=hidden.device)
    how = inputs.recipe
    loss = losses.begun_loss(roots, head, tree, scores, how.soft_target, how.distance)
    if reads.step_rows:
        at = hidden[reads.step_rows, reads.step_columns]
        log_p = path_log_probabilities(at, reads.step_nodes, reads.step_tokens, head, tree)
        loss = loss - REST * log_p.sum() / len(targets)
    return loss


def drawn(inputs: Inputs, score: float, key: tuple[object, ...]) -> int:
    """A number drawn from the soft target around a score, or its stand-in."""
    p = soft_targets(torch.tensor(score), inputs.recipe.soft_target).double().numpy()
    draw = sampling.rng(inputs.recipe.seed, *key, "number")
    number = int(draw.choice(len(p), p=p / p.sum()))
    return stand_ins(inputs.student.template.tree)[number]


def _ask(
    inputs: Inputs,
    tree: TokenTree,
    tip: int,
    row: int,
    metric: int,
    score: int,
    reason: list[int],
    reads: Reads,
) -> None:
    """Hang one question with its number and reason below `tip`, in the recipe's style."""
    template = inputs.student.template
    question = template.questions[metric]
    if inputs.recipe.style == CHAIN_OF_THOUGHT and reason:
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


def _reason(inputs: Inputs, text: str) -> list[int]:
    """A reason's tokens, in the recipe's style; one that is too long for scoring is cut."""
    if not text:
        return []
    tokenizer, thinking = inputs.student.processor.tokenizer, inputs.student.template.thinking
    if thinking is not None:
        ids = tokenizer(f"{text}\n", add_special_tokens=False)["input_ids"]
        return thinking.closed(ids)
    ids = tokenizer(f"\n{text}", add_special_tokens=False)["input_ids"]
    return [*ids, tokenizer.eos_token_id]


def odds_of(inputs: Inputs, hidden: Tensor, reads: Reads, stage: Stage) -> Tensor:
    """Log odds (R,) of the numbers that `Inputs.ask` asked for; with `sampled_numbers` as far as
    their first tokens tell them."""
    if stage.sampled_numbers:
        student = inputs.student
        read = hidden[reads.rows, [column for (column,) in reads.columns]]
        return begun_odds(read, student.lm_head.weight, student.template.tree)
    return log_odds(read_out(inputs, hidden, reads))


def read_out(inputs: Inputs, hidden: Tensor, reads: Reads) -> Tensor:
    """Log probabilities (R, 101) of the numbers to be read."""
    rows = torch.tensor(reads.rows, device=hidden.device)
    columns = torch.tensor(reads.columns, device=hidden.device)
    at = hidden[rows[:, None], columns]  # (R, N, D)
    head = inputs.student.lm_head
    return log_probabilities(head(at.to(head.weight.dtype)), inputs.student.template.tree)
