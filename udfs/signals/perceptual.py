"""A perceptual hash of 64 bits: pictures that look alike differ in few of them.

The hash is `imagehash.phash`: signs of the lowest 8 x 8 frequencies against their median, so that
size, format and compression hardly matter. To find the hashes within some bits of each other
without comparing all with all, a hash is cut into bands, and only hashes that share a key of two
bands are compared.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

BITS = 64
FLAT = "0" * 16  # no picture's own hash: at least half of the bits are not set, but not all
MAX_DISTANCE = 6  # beyond it, keys are so short that everything shares one with everything
_SIDE = 32  # what phash looks at
_FLAT_LEVELS = 4  # of 256: what noise of compression does to one colour
_KEY_BITS = 48  # room for the bits of two bands; the pair's number comes above them


def phash(picture: Image) -> str:
    """The hash in 16 hex digits. All pictures of one even colour have the hash FLAT: their
    frequencies are rounding errors."""
    import imagehash
    from PIL.Image import Resampling

    grey = picture.convert("L").resize((_SIDE, _SIDE), Resampling.LANCZOS)
    low, high = (int(level) for level in grey.getextrema())  # type: ignore[arg-type]
    return FLAT if high - low < _FLAT_LEVELS else str(imagehash.phash(grey))


def distance(one: str, other: str) -> int:
    """How many bits of two hashes differ, 0..64."""
    return (int(one, 16) ^ int(other, 16)).bit_count()


def keys(hash_: str, most: int) -> list[int]:
    """Whole numbers such that any two hashes at most `most` (1..MAX_DISTANCE) bits apart share one.

    Of `most` + 2 bands at least two are free of the bits that differ: a key is the content of two
    bands, and there is one for each two. Of 64 bits and 4 that may differ these are 15 keys of
    21 or 22 bits. (Two bands rather than one: keys of twice the length, so that few share one by
    chance.)
    """
    bits, bands = int(hash_, 16), most + 2
    edges = [BITS * band // bands for band in range(bands + 1)]
    cut = [(bits >> a) & ((1 << (b - a)) - 1) for a, b in zip(edges, edges[1:], strict=False)]
    widths = [b - a for a, b in zip(edges, edges[1:], strict=False)]
    return [
        (number << _KEY_BITS) | (cut[one] << widths[other]) | cut[other]
        for number, (one, other) in enumerate(combinations(range(bands), 2))
    ]
