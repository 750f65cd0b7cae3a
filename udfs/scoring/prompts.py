"""The prompt around image and caption: one shared prefix and four questions.

The paper has a prompt for each metric (arXiv 2403.02677, section 3.1 and appendix). Here the four
questions share a prefix of image, caption and instruction, so that one forward pass can hold all of
them; the questions are short because there are four of them.

A model must score with the prompt that it was trained with. So the folder of a fine-tuned model may
hold a `mlm_filter.json` with its prompt; without that file the default prompt is used.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from udfs.core.error_lines import one_line
from udfs.core.metrics import METRICS

PROMPT_FILE = "mlm_filter.json"

RATIONALIZATION = "rationalization"
CHAIN_OF_THOUGHT = "chain_of_thought"
STYLES = (RATIONALIZATION, CHAIN_OF_THOUGHT)
"""The paper's two kinds of answers: the number first, then the reason; or the reason first."""


class PromptError(ValueError):
    """A model's prompt file is damaged or asks for something that this version cannot do."""


@dataclass(frozen=True)
class Prompt:
    """One prompt for four metrics.

    `before` comes between image and caption, `after` between caption and question, and
    `questions` holds one question for each metric, in the order of `METRICS`. `image_fit` says what
    happens to an image that is not square: `pad` (to a square, with grey) or `as_is` (left to the
    model's own image processor); training and scoring must use the same. `style` is one of STYLES:
    in a chain of thought the model writes at most `max_reason_tokens` before the number is read.
    """

    before: str = "Text caption: "
    after: str = "\nRate the caption from 0 to 100. Answer with the number first.\n"
    questions: tuple[str, str, str, str] = (
        "Image-text matching: does it represent the main features and theme of the image?",
        "Object detail: do number, colour, size, position and material agree with the objects?",
        "Text quality: grammar, vocabulary, fluency, readability, length and structure?",
        "Semantic understanding: does it add fitting meaning that cannot be seen in the image?",
    )
    image_fit: str = "as_is"
    style: str = RATIONALIZATION
    max_reason_tokens: int = 64

    def __post_init__(self) -> None:
        if len(self.questions) != len(METRICS):
            raise PromptError(f"a prompt needs {len(METRICS)} questions, not {len(self.questions)}")
        if self.image_fit not in ("pad", "as_is"):
            raise PromptError(f"image_fit is 'pad' or 'as_is', not {self.image_fit!r}")
        if self.style not in STYLES:
            raise PromptError(f"style is one of {', '.join(STYLES)}, not {self.style!r}")
        if self.max_reason_tokens < 1:
            raise PromptError("max_reason_tokens is at least 1")

    def version(self) -> str:
        """Eight hex digits that change with every part of the prompt that changes a score."""
        fields = asdict(self)
        if self.style == RATIONALIZATION:  # no reason is written: the version from before styles
            del fields["style"], fields["max_reason_tokens"]
        return hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:8]


def load_prompt(folder: str | Path) -> Prompt:
    """Return the prompt that the model in `folder` was trained with, or the default one.

    Raises PromptError if the file exists but cannot be used: scoring with another prompt than in
    training would give numbers that look right but are not.
    """
    path = Path(folder) / PROMPT_FILE
    if not path.is_file():
        return Prompt()
    try:
        fields = json.loads(path.read_text("utf-8"))
        kinds: dict[str, type] = {"questions": list, "max_reason_tokens": int}
        texts = [("question", text) for text in list(fields["questions"])]
        for name, value in (*fields.items(), *texts):
            if not isinstance(value, kinds.get(name, str)):
                raise PromptError(f"{name} cannot be {value!r:.80}")
        return Prompt(**{**fields, "questions": tuple(fields["questions"])})
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        said = one_line(error)
        raise PromptError(f"{path}: not a prompt file of this version ({said})") from error


def save_prompt(prompt: Prompt, folder: str | Path) -> None:
    """Write the prompt beside a model's weights, where `load_prompt` finds it."""
    path = Path(folder) / PROMPT_FILE
    path.write_text(json.dumps(asdict(prompt), indent=2) + "\n", encoding="utf-8")
