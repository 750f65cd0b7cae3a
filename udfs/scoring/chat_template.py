"""A model's chat template, split into what comes before the caption and what comes after it.

The parts are encoded one by one, so that a long caption is cut without touching the question
(ordinary truncation would cut off the end), and so that training and scoring use the same tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from udfs.core.child_process import ChildError, call_in_child
from udfs.scoring import number_tree
from udfs.scoring.number_tree import NumberTree
from udfs.scoring.prompts import CHAIN_OF_THOUGHT, Prompt

APPENDED = {"PaliGemmaProcessor": "\n"}
"""What a processor writes at the end of a prompt on its own."""

_CAPTION = "\u241fcaption\u241f"  # a placeholder while the template is rendered
_QUESTION = "\u241fquestion\u241f"


class TemplateError(ValueError):
    """The model's chat template fails, or cannot hold image, caption and question in this order."""


@dataclass(frozen=True)
class Thinking:
    """How a reason that the model writes ends: with a token of `line_breaks` (all that contain
    one); or cut after `max_tokens` or before one of `end_tokens`, and then closed by `newline`."""

    newline: tuple[int, ...]
    line_breaks: frozenset[int]
    end_tokens: frozenset[int]
    max_tokens: int

    def closed(self, reason: Sequence[int]) -> list[int]:
        """A reason's tokens up to its end, with the line break before the number."""
        for i, token in enumerate(reason[: self.max_tokens]):
            if token in self.end_tokens:
                return [*reason[:i], *self.newline]
            if token in self.line_breaks:
                return list(reason[: i + 1])
        return [*reason[: self.max_tokens], *self.newline]


@dataclass(frozen=True)
class Template:
    """The parts of a prompt: `head` (text with the image placeholder, for the processor), the
    caption's tokens, `after` (tokens), and for each metric `questions[m]` (tokens up to the number)
    and the `tree` of the number's tokens. `begins` is true if the tokenizer still has to add its
    BOS token to the head. `thinking` is None unless a reason comes between question and number."""

    head: str
    begins: bool
    after: tuple[int, ...]
    questions: tuple[tuple[int, ...], ...]
    tree: NumberTree
    thinking: Thinking | None = None


def plain_encoder(tokenizer: Any) -> Callable[[str], list[int]]:
    """An encoder for the template's own text: special tokens in it count, none are added."""

    def encode(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    return encode


def appended_by(processor: Any) -> str:
    """What the processor writes at the end of a prompt on its own, or an empty string."""
    return APPENDED.get(type(processor).__name__, "")


def build(processor: Any, prompt: Prompt) -> Template:
    """Render the processor's chat template with `prompt` and split it at caption and question.

    Raises TemplateError if image, caption and question do not come in this order, and
    NumberTreeError if scores cannot be read with this tokenizer.
    """
    rendered = _render(processor, f"{prompt.before}{_CAPTION}{prompt.after}{_QUESTION}")
    head, _, rest = rendered.partition(_CAPTION)
    after, _, tail = rest.partition(_QUESTION)
    tail += appended_by(processor)
    image_token = _image_token(processor)
    if not rest or head.count(image_token) != 1:
        raise TemplateError("the chat template must put one image before the text")
    encode = plain_encoder(processor.tokenizer)
    questions = [number_tree.build(encode, question + tail) for question in prompt.questions]
    trees = {tree for _, tree in questions}
    if len(trees) != 1:
        raise TemplateError("the tokenizer spells numbers differently after each question")
    bos = getattr(processor.tokenizer, "bos_token", None)
    return Template(
        head=head,
        begins=not (bos and head.startswith(bos)),
        after=tuple(encode(after)),
        questions=tuple(tuple(tokens) for tokens, _ in questions),
        tree=trees.pop(),
        thinking=_thinking(processor.tokenizer, prompt),
    )


def _thinking(tokenizer: Any, prompt: Prompt) -> Thinking | None:
    if prompt.style != CHAIN_OF_THOUGHT:
        return None
    words = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    return Thinking(
        newline=tuple(plain_encoder(tokenizer)("\n")),
        line_breaks=frozenset(token for token, word in enumerate(words) if "\n" in word),
        end_tokens=frozenset(tokenizer.all_special_ids),
        max_tokens=prompt.max_reason_tokens,
    )


def _render(processor: Any, text: str) -> str:
    if not getattr(processor, "chat_template", None):
        # LLaVA-1.5's own format, for base models that come without a template.
        return f"USER: {_image_token(processor)}\n{text} ASSISTANT: "
    content = [{"type": "image"}, {"type": "text", "text": text}]
    turn = [{"role": "user", "content": content}]
    # A template is a program of the model's author. Jinja's sandbox keeps it from files and from
    # Python's inner parts, but not from running for hours or from taking all memory.
    try:
        return call_in_child(
            lambda: str(
                processor.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
            )
        )
    except ChildError as error:
        raise TemplateError(f"the chat template fails: {error}") from error


def _image_token(processor: Any) -> str:
    token = getattr(processor, "image_token", None)
    if token is None:
        raise TemplateError(f"{type(processor).__name__} names no image token")
    return str(getattr(token, "content", token))
