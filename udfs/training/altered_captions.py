"""Captions with details changed: `Two red cars on the left` -> `Three red cars on the right`.

Of a caption and its altered copy, the first describes its image better, whoever looks: an order for
ranking that needs no teacher. Only words that a caption's own image decides are changed, each for
another of its kind, evenly in both directions: were some words only ever put in, a student could
tell the copy by them without looking.
"""

from __future__ import annotations

import re

import numpy as np

KINDS: tuple[tuple[str, ...], ...] = (
    ("one", "two", "three", "four", "five", "six", "seven", "eight"),
    ("single", "double", "triple"),
    ("first", "second", "third", "fourth"),
    ("red", "blue", "green", "yellow", "orange", "purple", "pink", "brown"),
    ("black", "white", "gray"),
    ("dark", "light"),
    ("left", "right"),
    ("top", "bottom"),
    ("upper", "lower"),
    ("above", "below"),
    ("up", "down"),
    ("upward", "downward"),
    ("upwards", "downwards"),
    ("inside", "outside"),
    ("inner", "outer"),
    ("front", "back"),
    ("horizontal", "vertical"),
    ("horizontally", "vertically"),
    ("clockwise", "counterclockwise"),
    ("north", "south", "east", "west"),
    ("northern", "southern", "eastern", "western"),
    ("large", "small", "tiny", "huge"),
    ("larger", "smaller"),
    ("long", "short"),
    ("longer", "shorter"),
    ("tall", "short"),
    ("high", "low"),
    ("higher", "lower"),
    ("wide", "narrow"),
    ("thick", "thin"),
    ("increases", "decreases"),
    ("increasing", "decreasing"),
    ("positive", "negative"),
    ("solid", "dashed", "dotted"),
    ("straight", "curved"),
    ("circle", "square", "triangle", "rectangle", "oval"),
    ("circular", "rectangular", "triangular"),
    ("man", "woman"),
    ("men", "women"),
    ("boy", "girl"),
    ("boys", "girls"),
    ("male", "female"),
    ("father", "mother"),
    ("his", "her"),
    ("sitting", "standing", "lying", "walking", "running"),
    ("sits", "stands", "lies"),
    ("open", "closed"),
    ("old", "young"),
    ("empty", "full"),
    ("wooden", "metal", "plastic", "glass"),
    ("several", "two"),
    ("day", "night"),
    ("photograph", "drawing", "painting", "map", "graph", "diagram"),
)
_RIVALS: dict[str, list[str]] = {}
for _kind in KINDS:
    for _word in _kind:
        _RIVALS.setdefault(_word, []).extend(other for other in _kind if other != _word)
_WORD = re.compile(rf"\b(?:{'|'.join(sorted(_RIVALS, key=len, reverse=True))})\b", re.IGNORECASE)
KEEP = 0.5
"""The share of the words that could change and do not, beside one that always does."""
DRAWS = 50
"""So often changes are drawn anew where they would make two words one (`left` and `right`)."""


def altered(caption: str, rng: np.random.Generator) -> str | None:
    """`caption` with at least one word changed, or None where it holds none that could be.

    One word is sure to change, of the others each with a chance of a half; a word that comes again
    is changed alike everywhere, and two words of a kind are never made one.
    """
    words = sorted({match.group().lower() for match in _WORD.finditer(caption)})
    if not words:
        return None
    for _ in range(DRAWS):
        chosen = _changes(words, rng)
        if len(set(chosen.values())) == len(words):
            break
    else:
        return None
    return _WORD.sub(lambda match: _as(match.group(), chosen), caption)


def _changes(words: list[str], rng: np.random.Generator) -> dict[str, str]:
    """What becomes of each word."""
    surely = words[rng.integers(len(words))]
    chosen = {}
    for word in words:
        change = word == surely or rng.random() >= KEEP
        rivals = _RIVALS[word]
        chosen[word] = rivals[rng.integers(len(rivals))] if change else word
    return chosen


def _as(word: str, chosen: dict[str, str]) -> str:
    """The word's replacement, written as it was: lower case, Capital or CAPITALS."""
    new = chosen[word.lower()]
    if new == word.lower():
        return word
    if word.isupper() and len(word) > 1:
        return new.upper()
    return new.capitalize() if word[0].isupper() else new
