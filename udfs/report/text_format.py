"""Numbers and text as a reader wants them: short, and never able to harm the page around them."""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal

from udfs.inputs.captions import clean

LONGEST = 240
"""Characters of a name, reason or setting from the data that are shown."""

FIRST, SECOND = 120, 1_000
"""Characters of a caption that are shown at once, and further ones that can be opened."""

_MOST_MARKS = 3  # accents on one letter; more are stacked to deface a page


def cut(text: str | bytes | None, longest: int = LONGEST) -> str:
    """The beginning of a text on one line, with an ellipsis where something was left out."""
    beginning, _, left = parts(text, longest, 0)
    return beginning + ("\u2026" if left else "")


def parts(
    text: str | bytes | None, first: int = FIRST, second: int = SECOND
) -> tuple[str, str, int]:
    """The first characters of a text, about as many as wanted; what comes next; how many are left.

    White space becomes one space, and so does what is no character or turns the direction of text.
    """
    whole = clean(text)
    most = 4 * (first + second)  # captions of a million characters occur; the rest is not looked at
    shown = re.sub(r"\s+", " ", "".join(map(_plain, whole[:most])))
    shown = re.sub(rf"([\u0300-\u036f]{{{_MOST_MARKS}}})[\u0300-\u036f]+", r"\1", shown).lstrip()
    if len(whole) <= most:
        shown = shown.rstrip()
    if len(shown) <= first and len(whole) <= most:
        return shown, "", 0
    end = first
    if second:  # between words, unless a word is very long
        space = shown.rfind(" ", first - 20, first + 1)
        end = space if space > 0 else first
    rest = shown[end : end + second]
    left = len(shown) - end - len(rest) + max(0, len(whole) - most)
    return shown[:end], rest, left


def _plain(character: str) -> str:
    # Cc, Cf, Co, Cn: controls, marks of direction, unassigned. A joiner shapes emoji and scripts.
    if character in "\u200d\u200c" or unicodedata.category(character)[0] != "C":
        return character
    return " "


def number(value: float | int | None) -> str:
    """A count with separators: 1,234,567."""
    return "\u2013" if value is None else f"{value:,}"


def share(part: int, whole: int) -> str:
    """A part in percent, never rounded to none or all: 34.1 %, 0.0012 %, over 99.9 %."""
    if whole <= 0:
        return "\u2013"
    if part in (0, whole):
        return "0 %" if part == 0 else "100 %"
    percent = 100 * part / whole
    if percent < 0.1:
        return f"{Decimal(f'{percent:.2g}'):f} %"
    return f"{percent:.1f} %" if part / whole < 0.9995 else "over 99.9 %"


def score(value: float | None) -> str:
    """A signal's value: whole as it is, else one decimal from 10 on and three below 1."""
    if value is None:
        return "\u2013"
    size = abs(value)
    if size >= 1e7 or 0 < size < 1e-3:
        return f"{value:.3g}"
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.{1 if size >= 10 else 2 if size >= 1 else 3}f}"


def edge(value: float) -> str:
    """A threshold or a bin's end: as written, with no more digits than it needs."""
    return f"{value:,.10g}" if abs(value) < 1e7 else f"{value:.4g}"
