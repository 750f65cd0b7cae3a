"""Text that comes from data, made safe to show: on a terminal, in a log, in a reason."""

from __future__ import annotations

import unicodedata

_JOINERS = "\u200c\u200d"  # between letters of Persian, and parts of one emoji


def visible(text: str) -> str:
    r"""`text` as one line whose letters all show: `\n` and `\x1b` in place of what would end the
    line or command a terminal, `\u202e` in place of what would turn its direction. Spaces of any
    width become plain ones.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else _written(letter) for letter in text)


def _written(letter: str) -> str:
    if letter in _JOINERS:
        return letter
    if unicodedata.category(letter) == "Zs":
        return " "
    return letter.encode("unicode_escape").decode()
