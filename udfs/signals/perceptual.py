"""Perceptual hashes of 64 bits, which differ in few bits if two pictures look alike.

The hash is `imagehash.phash`: whether each of the lowest 8 x 8 frequencies is above their median,
so size, format and compression hardly matter. To find hashes within a few bits of each other
without comparing all with all, each hash is cut into bands, and only hashes that agree in two bands
(share a key) are compared.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

BITS = 64
FLAT = "0" * 16  # never the hash of another picture: half of the bits or fewer are set, but some
MAX_DISTANCE = 6  # beyond this, keys are so short that almost all hashes share one
_SIDE = 32  # the size that phash works on, px
_FLAT_LEVELS = 4  # of 256: compression noise in a picture of one colour stays below this
_KEY_BITS = 48  # enough for the bits of two bands; the number of the two comes above them


def phash(picture: Image) -> str:
    """The hash in 16 hex digits. All pictures of a single colour have the hash FLAT, because their
    frequencies are only rounding errors."""
    import imagehash
    from PIL.Image import Resampling

    grey = picture.convert("L").resize((_SIDE, _SIDE), Resampling.LANCZOS)
    low, high = (int(level) for level in grey.getextrema())  # type: ignore[arg-type]
    return FLAT if high - low < _FLAT_LEVELS else str(imagehash.phash(grey))


def distance(first: str, second: str) -> int:
    """The number of bits in which two hashes differ, 0..64."""
    return (int(first, 16) ^ int(second, 16)).bit_count()


def keys(hash_: str, max_distance: int) -> list[int]:
    """Integers such that any two hashes at most `max_distance` (1..MAX_DISTANCE) bits apart share
    at least one.

    Of `max_distance` + 2 bands, at least two contain no differing bit. A key is the content of two
    bands, and there is one for each combination: for 4 differing bits of 64, 15 keys of 21 or 22
    bits. (Two bands rather than one make the keys twice as long, so few are shared by chance.)
    """
    bits, count = int(hash_, 16), max_distance + 2
    edges = [BITS * band // count for band in range(count + 1)]
    bands = [(bits >> a) & ((1 << (b - a)) - 1) for a, b in zip(edges, edges[1:], strict=False)]
    widths = [b - a for a, b in zip(edges, edges[1:], strict=False)]
    return [
        (number << _KEY_BITS) | (bands[i] << widths[j]) | bands[j]
        for number, (i, j) in enumerate(combinations(range(count), 2))
    ]
