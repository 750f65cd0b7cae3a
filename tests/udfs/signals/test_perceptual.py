"""Perceptual hashes of similar pictures are close, and the keys find such hashes."""

import io
import random

from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import encoded, photo
from PIL import Image

from udfs.signals import perceptual

NO_DEADLINE = settings(deadline=None)  # the machine may be busy


def test_a_picture_keeps_its_hash_through_formats_and_sizes() -> None:
    hashes = [perceptual.phash(photo(seed, 400, 300)) for seed in range(12)]
    for seed, first in enumerate(hashes):
        image = photo(seed, 400, 300)
        small = image.resize((160, 120), Image.Resampling.LANCZOS)
        for data in (
            encoded(image, "JPEG", quality=50),
            encoded(image, "WEBP", quality=60),
            encoded(small, "JPEG", quality=80),
            encoded(small.convert("L"), "PNG"),
        ):
            again = perceptual.phash(Image.open(io.BytesIO(data)))
            assert perceptual.distance(first, again) <= 4
    distances = [perceptual.distance(a, b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(distances) > 10


@NO_DEADLINE
@given(
    st.integers(0, 2**64 - 1),
    st.integers(1, perceptual.MAX_DISTANCE),
    st.data(),
)
def test_every_pair_within_the_distance_shares_a_key(
    hash_: int, max_distance: int, data: st.DataObject
) -> None:
    flipped = data.draw(st.sets(st.integers(0, 63), max_size=max_distance))
    other = hash_
    for bit in flipped:
        other ^= 1 << bit
    hashes = f"{hash_:016x}", f"{other:016x}"
    assert perceptual.distance(*hashes) == len(flipped)
    first, second = (perceptual.keys(name, max_distance) for name in hashes)
    assert set(first) & set(second)
    for keys in (first, second):
        assert len(keys) == (max_distance + 1) * (max_distance + 2) // 2 == len(set(keys))
        assert all(0 <= key < 2**63 for key in keys)


def test_random_hashes_hardly_ever_share_a_key() -> None:
    rng = random.Random(0)
    hashes = [f"{rng.getrandbits(64):016x}" for _ in range(400)]
    keys = [set(perceptual.keys(name, 4)) for name in hashes]
    shared = sum(bool(a & b) for i, a in enumerate(keys) for b in keys[:i])
    assert shared <= 6  # of 79,800 pairs; with 15 keys of 21.3 bits, 0.4 are expected
