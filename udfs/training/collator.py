"""Items of training as packed sequences: an image once for all of its captions, a caption once for
its four questions, under the block mask of scoring (`udfs.scoring.token_tree`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from udfs.core.metrics import METRICS
from udfs.inputs import captions, images
from udfs.scoring.chat_template import Template
from udfs.scoring.packing import Row, encode, encode_head, join_pictures
from udfs.scoring.prompts import CHAIN_OF_THOUGHT, Prompt
from udfs.scoring.token_tree import ROOT, TokenTree
from udfs.training.balanced_sampler import BalancedSampler, Item
from udfs.training.examples import Examples, Instruction
from udfs.training.settings import TrainingSettings

if TYPE_CHECKING:
    from torch import Tensor

PAD_TO = 16  # sequences are padded to a multiple: few shapes, which memory and kernels like
MAX_TOKENS = 16_384  # a longer conversation is cut


@dataclass
class PackedItem:
    """One sequence: `head`, what the processor made of the image, then `tree`, the tokens after it.

    Columns count from the tree's first token; -1 is the head's last one. `numbers` has for each
    number that is read its columns (one a node of the number tree) and the instruction that holds
    the score; `tokens` has the column at which each token of a reason is predicted, and the token.
    """

    head: Row
    tree: TokenTree
    numbers: list[tuple[list[int], Instruction]] = field(default_factory=list)
    tokens: list[tuple[int, int]] = field(default_factory=list)


class PackedDataset:
    """Turns an Item of the sampler into a PackedItem: decodes, encodes, lays out."""

    def __init__(
        self,
        examples: Examples,
        sampler: BalancedSampler,
        processor: Any,
        template: Template,
        prompt: Prompt,
        settings: TrainingSettings,
    ) -> None:
        self.examples, self.sampler, self.processor = examples, sampler, processor
        self.template, self.prompt, self.settings = template, prompt, settings
        self._caption_tokens = captions.encoder(processor)

    def __len__(self) -> int:
        return len(self.sampler)

    def set_epoch(self, epoch: int) -> None:
        """Pass the epoch on to the sampler: trainers set it on datasets."""
        self.sampler.set_epoch(epoch)

    def __getitem__(self, item: Item) -> PackedItem:
        picture = None
        if item.image is not None:
            picture = images.decode(self.examples.images[item.image], self.prompt.image_fit)
        if item.conversation is not None:
            return self._conversation(item.conversation, picture)
        packed = PackedItem(encode_head(self.processor, self.template, picture), TokenTree())
        for caption, asked in item.captions:
            text = captions.clean(caption)
            ids, _ = self._caption_tokens(text, self.settings.max_caption_tokens)
            tip = packed.tree.extend(ROOT, [*ids, *self.template.after])
            for instruction in asked:
                self._ask(packed, tip, instruction)
        return packed

    def _ask(self, packed: PackedItem, tip: int, asked: Instruction) -> None:
        """Hang one question with its number and reason below `tip`, in the style of the answers."""
        tree, question = packed.tree, self.template.questions[asked.metric]
        reason = self._reason(asked.reason) if self.settings.objectives.reason_likelihood else []
        if self.prompt.style == CHAIN_OF_THOUGHT:
            tip = tree.extend(tip, question)
            end = tree.extend(tip, self._reason(asked.reason), answer=True)
            if reason:
                _predict(packed, tip, end)
            packed.numbers.append((tree.ask(end, (), self.template.tree), asked))
            return
        columns = tree.ask(tip, question, self.template.tree)
        packed.numbers.append((columns, asked))
        if reason:
            number = [token for _, token in self.template.tree.steps[round(asked.score)]]
            last = tree.extend(columns[0], number, answer=True)
            _predict(packed, last, tree.extend(last, reason, answer=True))

    def _reason(self, text: str) -> list[int]:
        """A reason's tokens up to its end; one that is too long for scoring is cut."""
        tokenizer, thinking = self.processor.tokenizer, self.template.thinking
        encode = {"add_special_tokens": False, "split_special_tokens": True}
        if thinking is not None:
            return thinking.closed(tokenizer(f"{text}\n", **encode)["input_ids"])
        if not text:
            return []
        ids = tokenizer(f"\n{text}", **encode)["input_ids"]
        return [*ids[: self.prompt.max_reason_tokens], tokenizer.eos_token_id]

    def _conversation(self, index: int, picture: Any) -> PackedItem:
        row, is_answer = _encode_conversation(
            self.processor, self.examples.conversations[index].turns, picture
        )
        ids, is_answer = row.ids[:MAX_TOKENS], is_answer[:MAX_TOKENS]
        first = int(is_answer.argmax())  # all before the first answer is the head
        per_token = {name: value[:first] for name, value in row.per_token.items()}
        packed = PackedItem(Row(ids[:first], per_token, row.pixels), TokenTree())
        packed.tree.extend(ROOT, ids[first:].tolist(), answer=True)
        packed.tokens = [
            (i - 1, int(ids[first + i])) for i in np.flatnonzero(is_answer[first:]).tolist()
        ]
        return packed


def _predict(packed: PackedItem, before: int, end: int) -> None:
    """Learn the chain of tokens that hangs below `before` and ends with `end`."""
    chain = packed.tree.path(end)
    for column in chain[chain.index(before) + 1 :]:
        packed.tokens.append((packed.tree.parents[column], packed.tree.ids[column]))


def _encode_conversation(
    processor: Any, turns: Sequence[tuple[str, str]], picture: Any | None
) -> tuple[Row, NDArray[np.bool_]]:
    """What the processor makes of a conversation, and which tokens (L,) the assistant says: general
    visual instructions, so that a model keeps its other skills (the paper mixes 46,000 of them with
    4,000 answers about quality, arXiv 2403.02677, section 3.3).

    The picture stands in the first turn of the user. Raises ValueError for a chat template that
    writes a turn otherwise when more turns follow.
    """
    messages = []
    for number, (role, text) in enumerate(turns):
        image = [{"type": "image"}] if picture is not None and number == 0 else []
        messages.append({"role": role, "content": [*image, {"type": "text", "text": text}]})
    whole = _encode(processor, messages, picture, answering=False)
    ids = whole.ids.tolist()
    is_answer = np.zeros(len(ids), dtype=np.bool_)
    for number, (role, _) in enumerate(turns):
        if role != "assistant":
            continue
        start, end = (
            _encode(processor, messages[:stop], picture, answering).ids.tolist()
            for stop, answering in ((number, True), (number + 1, False))
        )
        if ids[: len(start)] != start or ids[: len(end)] != end:
            raise ValueError("the chat template writes a turn otherwise when more turns follow")
        is_answer[len(start) : len(end)] = True
    return whole, is_answer


def _encode(
    processor: Any, messages: Sequence[dict[str, Any]], picture: Any | None, answering: bool
) -> Row:
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=answering)
    bos = getattr(processor.tokenizer, "bos_token", None)
    return encode(processor, text, picture, not (bos and text.startswith(bos)))


def collate(items: Sequence[PackedItem]) -> dict[str, Any]:
    """B packed items as one batch, padded on the right to a multiple of PAD_TO.

    `input_ids` (B, L); `related` (B, L, L), true where two tokens share a branch; `offsets` (B, L),
    depths in the tree; `answers` (B, L), true for tokens of answers; `lengths` (B,) of the heads;
    `per_token` and `pixels`, the processor's other outputs; for R
    numbers `number_rows` (R,), `number_columns` (R, N), `scores`, `spreads` (NaN: not given) and
    `groups` (R,), the image and metric; for T tokens `token_rows`, `token_columns`, `tokens` (T,);
    `parts`, how many images, tiles or patches each row has; `trees`, the trees themselves.
    """
    import torch

    heads = [len(item.head.ids) for item in items]
    longest = max(head + len(item.tree) for head, item in zip(heads, items, strict=True))
    length = -(-longest // PAD_TO) * PAD_TO
    ids = torch.zeros(len(items), length, dtype=torch.long)
    offsets = torch.zeros_like(ids)
    answers = torch.zeros_like(ids, dtype=torch.bool)
    related = torch.zeros(len(items), length, length, dtype=torch.bool)
    for row, (head, item) in enumerate(zip(heads, items, strict=True)):
        end = head + len(item.tree)
        ids[row, :head] = item.head.ids
        ids[row, head:end] = torch.tensor(item.tree.ids, dtype=torch.long)
        ids[row, end:] = ids[row, end - 1]  # a token that is no placeholder of an image
        offsets[row, head:end] = torch.tensor(item.tree.depths, dtype=torch.long)
        answers[row, head:end] = torch.tensor(item.tree.answers, dtype=torch.bool)
        related[row, :end, :end] = True
        related[row, head:end, head:end] = torch.from_numpy(item.tree.related())
    per_token: dict[str, Tensor] = {}
    for row, item in enumerate(items):
        for name, value in item.head.per_token.items():
            per_token.setdefault(name, torch.zeros_like(ids))[row, : heads[row]] = value
    pixels = join_pictures([item.head.pixels for item in items])
    numbers = [(row, *number) for row, item in enumerate(items) for number in item.numbers]
    tokens = [(row, *token) for row, item in enumerate(items) for token in item.tokens]
    nodes = len(numbers[0][1]) if numbers else 1
    spreads = [math.nan if asked.spread is None else asked.spread for _, _, asked in numbers]
    return {
        "input_ids": ids,
        "related": related,
        "offsets": offsets,
        "answers": answers,
        "lengths": torch.tensor(heads),
        "per_token": per_token,
        "pixels": pixels,
        "number_rows": torch.tensor([row for row, _, _ in numbers], dtype=torch.long),
        "number_columns": torch.tensor(
            [heads[row] + column for row, columns, _ in numbers for column in columns],
            dtype=torch.long,
        ).reshape(-1, nodes),
        "scores": torch.tensor([asked.score for _, _, asked in numbers]),
        "spreads": torch.tensor(spreads),
        "groups": torch.tensor([row * len(METRICS) + asked.metric for row, _, asked in numbers]),
        "token_rows": torch.tensor([row for row, _, _ in tokens], dtype=torch.long),
        "token_columns": torch.tensor(
            [heads[row] + column for row, column, _ in tokens], dtype=torch.long
        ),
        "tokens": torch.tensor([token for _, _, token in tokens], dtype=torch.long),
        "parts": {name: [len(item.head.pixels.get(name, ())) for item in items] for name in pixels},
        "trees": [item.tree for item in items],
    }
