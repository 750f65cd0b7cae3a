"""What an error says, in one short line."""

from __future__ import annotations

from udfs.core.visible_text import visible

MOST = 300
"""Characters. Libraries put lists of all modules or a page of advice into an error."""

_SPEAK_FOR_THEMSELVES = (OSError, ValueError, ImportError)
"""Errors whose text is a sentence. That of others is only a name, or nothing (KeyError: 'x')."""


def one_line(error: BaseException | str) -> str:
    """The text of an error as one line that any terminal can show; before it the kind of error
    where the text needs it."""
    text = visible(" ".join(str(error).split()))
    if isinstance(error, BaseException) and not (text and isinstance(error, _SPEAK_FOR_THEMSELVES)):
        text = f"{type(error).__name__}: {text}".removesuffix(": ")
    return text if len(text) <= MOST else f"{text[: MOST - 3]}..."
