"""Formats numbers and text for readers: short, and unable to harm the page around them."""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal

from udfs.inputs.captions import clean

MAX_LENGTH = 240
"""Maximum number of characters of a name, reason or setting from the data."""

FIRST, SECOND = 120, 1_000
"""Characters of a caption that are visible at once, and further ones that can be unfolded."""

_MAX_MARKS = 3  # accents on one letter; more are only stacked to deface a page


def cut(text: str | bytes | None, max_length: int = MAX_LENGTH) -> str:
    """The beginning of a text on one line, with an ellipsis if it was cut."""
    beginning, _, remaining = parts(text, max_length, 0)
    return beginning + ("\u2026" if remaining else "")


def parts(
    text: str | bytes | None, first: int = FIRST, second: int = SECOND
) -> tuple[str, str, int]:
    """About the first `first` characters of a text, the next `second`, and the number remaining.

    Runs of white space become one space, as do control characters and marks of text direction.
    """
    whole = clean(text)
    limit = 4 * (first + second)  # captions of a million characters occur; the rest is ignored
    safe = re.sub(r"\s+", " ", "".join(map(_printable, whole[:limit])))
    safe = re.sub(rf"([\u0300-\u036f]{{{_MAX_MARKS}}})[\u0300-\u036f]+", r"\1", safe).lstrip()
    if len(whole) <= limit:
        safe = safe.rstrip()
    if len(safe) <= first and len(whole) <= limit:
        return safe, "", 0
    end = first
    if second:  # between words, unless a word is very long
        space = safe.rfind(" ", first - 20, first + 1)
        end = space if space > 0 else first
    rest = safe[end : end + second]
    remaining = len(safe) - end - len(rest) + max(0, len(whole) - limit)
    return safe[:end], rest, remaining


def _printable(character: str) -> str:
    # Cc, Cf, Co, Cn: controls, direction marks, unassigned. Joiners shape emoji and scripts.
    if character in "\u200d\u200c" or unicodedata.category(character)[0] != "C":
        return character
    return " "


def number(value: float | int | None) -> str:
    """A count with separators: 1,234,567."""
    return "\u2013" if value is None else f"{value:,}"


def share(part: int, whole: int) -> str:
    """A part in percent, never rounded to 0 % or 100 %: 34.1 %, 0.0012 %, over 99.9 %."""
    if whole <= 0:
        return "\u2013"
    if part in (0, whole):
        return "0 %" if part == 0 else "100 %"
    percent = 100 * part / whole
    if percent < 0.1:
        return f"{Decimal(f'{percent:.2g}'):f} %"
    return f"{percent:.1f} %" if part / whole < 0.9995 else "over 99.9 %"


def score(value: float | None) -> str:
    """A signal's value: integers as they are, others with one decimal from 10, three below 1."""
    if value is None:
        return "\u2013"
    size = abs(value)
    if size >= 1e7 or 0 < size < 1e-3:
        return f"{value:.3g}"
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.{1 if size >= 10 else 2 if size >= 1 else 3}f}"


def edge(value: float) -> str:
    """A threshold or the edge of a bin, with no more digits than it needs."""
    return f"{value:,.10g}" if abs(value) < 1e7 else f"{value:.4g}"
