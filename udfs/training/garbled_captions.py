"""Captions with their writing spoiled: `A cat on a mat.` -> `mat on a. a cat`, `A cqt on a mbt.`

Of a caption and its garbled copy, the first is written better, whatever the image: an order for
ranking that needs no teacher.
"""

from __future__ import annotations

import string

import numpy as np

FEWEST = 4
"""Words, of which there is an order to lose."""
LEFT_OUT = 0.3
"""The share of words that are missing where words go missing."""
MISREAD = 0.12
"""The share of letters that are others where letters are misread, as by OCR."""


def garbled(caption: str, rng: np.random.Generator) -> str | None:
    """`caption` with its words in disorder, with words missing, or with letters misread; None where
    it has too few words or nothing came of it."""
    words = caption.split()
    if len(words) < FEWEST:
        return None
    way = rng.integers(3)
    if way == 0:
        found = " ".join(words[i] for i in rng.permutation(len(words)))
    elif way == 1:
        near = np.argsort(np.arange(len(words)) + 2 * rng.random(len(words)), kind="stable")
        found = " ".join(words[i] for i in near if rng.random() >= LEFT_OUT)
    else:
        letters = string.ascii_lowercase
        found = "".join(
            letters[rng.integers(len(letters))] if c.isalpha() and rng.random() < MISREAD else c
            for c in caption
        )
    return found if found and found != caption else None
