"""Shingles of captions, to find captions that are nearly the same.

A caption is treated as the set of all runs of 5 characters in it (shingles), ignoring case, full or
half width and the amount of white space. Two captions are as similar as their sets (Jaccard:
common shingles by all shingles). To find similar ones without comparing all with all, the MinHash
of a set is cut into bands, and only captions that share a band are compared.
"""

from __future__ import annotations

import functools
import hashlib
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasketch import MinHash

LENGTH = 5
CHARACTERS = 5000  # the rest of a caption is ignored: bounds time, and memory to 40 KB a set
MIN_SIMILARITY = 0.7  # two captions this similar share a band with a probability of 0.975
BANDS = 20
BAND_ROWS = 5  # at a similarity of 0.8, 1 - (1 - 0.8**5)**20 = 0.9996 are found
_SEED = 1


def normalized(text: str) -> str:
    """The text that is compared: NFKC, case-folded, with single spaces, and of bounded length."""
    folded = unicodedata.normalize("NFKC", text[:CHARACTERS]).casefold()
    return " ".join(folded[: 2 * CHARACTERS].split())  # one ligature can become 18 characters


def name(text: str) -> str:
    """32 hex digits that identify a normalized text."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]


def shingles(text: str) -> list[int]:
    """The set of a normalized text's shingles, as sorted signed 64-bit hashes.

    A text of fewer than LENGTH characters is one shingle; an empty text has none.
    """
    if not text:
        return []
    runs = {text[i : i + LENGTH] for i in range(max(1, len(text) - LENGTH + 1))}
    return sorted({_hash(run.encode("utf-8", "replace")) for run in runs})


def similarity(first: Sequence[int], second: Sequence[int]) -> float:
    """Jaccard similarity of two sets of shingles, 0..1; 0 for two empty sets."""
    shared = len(set(first) & set(second))
    return shared / max(1, len(first) + len(second) - shared)


def keys(shingle_set: Sequence[int]) -> list[int]:
    """BANDS signed 64-bit numbers, of which similar sets very likely share one; none if empty.

    The same in every process and on every machine.
    """
    if not shingle_set:
        return []
    minhash = _empty_minhash().copy()
    minhash.update_batch(shingle_set)
    values = minhash.hashvalues.astype("<u4").reshape(BANDS, BAND_ROWS)
    return [_hash(bytes([number]) + band.tobytes()) for number, band in enumerate(values)]


@functools.cache
def _empty_minhash() -> MinHash:
    from datasketch import MinHash

    return MinHash(BANDS * BAND_ROWS, seed=_SEED, scheme="affine32", hashfunc=_low_bits)


def _low_bits(hash_: int) -> int:
    return hash_ & 0xFFFFFFFF


def _hash(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little", signed=True)
