"""What a caption is made of, for finding captions that are nearly the same.

A caption is taken as the set of all runs of 5 characters in it (shingles), whatever their case,
their width and the white space between words. Two captions are as similar as their sets: Jaccard,
shared by all. To find similar ones without comparing all with all, the MinHash of a set is cut into
bands, and captions that share a band are compared.
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
CHARACTERS = 5000  # more of a caption is not looked at: bounds time, and 40 KB a set
MIN_SIMILARITY = 0.7  # two captions so similar share a band with a probability of 0.975
BANDS = 20
BAND_ROWS = 5  # at a similarity of 0.8, 1 - (1 - 0.8**5)**20 = 0.9996 are found
_SEED = 1


def normalized(text: str) -> str:
    """The text that is compared: compatibility forms, case and white space folded, bounded."""
    folded = unicodedata.normalize("NFKC", text[:CHARACTERS]).casefold()
    return " ".join(folded[: 2 * CHARACTERS].split())  # one ligature can become 18 characters


def name(text: str) -> str:
    """32 hex digits that stand for a normalized text."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]


def shingles(text: str) -> list[int]:
    """The set of a normalized text's shingles as sorted signed 64-bit hashes.

    A text of less than LENGTH characters is one shingle; an empty text has none.
    """
    if not text:
        return []
    runs = {text[i : i + LENGTH] for i in range(max(1, len(text) - LENGTH + 1))}
    return sorted({_hash(run.encode("utf-8", "replace")) for run in runs})


def similarity(one: Sequence[int], other: Sequence[int]) -> float:
    """Jaccard similarity of two sets of shingles, 0..1; of two empty sets 0."""
    shared = len(set(one) & set(other))
    return shared / max(1, len(one) + len(other) - shared)


def keys(found: Sequence[int]) -> list[int]:
    """BANDS signed 64-bit numbers, of which similar sets share at least one; none of no shingles.

    The same in every process and on every machine.
    """
    if not found:
        return []
    minhash = _empty().copy()
    minhash.update_batch(found)
    values = minhash.hashvalues.astype("<u4").reshape(BANDS, BAND_ROWS)
    return [_hash(bytes([number]) + band.tobytes()) for number, band in enumerate(values)]


@functools.cache
def _empty() -> MinHash:
    from datasketch import MinHash

    return MinHash(BANDS * BAND_ROWS, seed=_SEED, scheme="affine32", hashfunc=_low_bits)


def _low_bits(hash_: int) -> int:
    return hash_ & 0xFFFFFFFF


def _hash(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little", signed=True)
