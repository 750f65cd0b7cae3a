"""A hash that pictures which look alike share, and the keys that find such hashes."""

import io
import random

from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import encoded, photo
from PIL import Image

from udfs.signals import perceptual

UNHURRIED = settings(deadline=None)  # the machine may be busy


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
    apart = [
        perceptual.distance(one, other) for i, one in enumerate(hashes) for other in hashes[:i]
    ]
    assert min(apart) > 10


@UNHURRIED
@given(
    st.integers(0, 2**64 - 1),
    st.integers(1, perceptual.MAX_DISTANCE),
    st.data(),
)
def test_every_pair_within_the_distance_shares_a_key(
    hash_: int, most: int, data: st.DataObject
) -> None:
    flipped = data.draw(st.sets(st.integers(0, 63), max_size=most))
    other = hash_
    for bit in flipped:
        other ^= 1 << bit
    one, two = f"{hash_:016x}", f"{other:016x}"
    assert perceptual.distance(one, two) == len(flipped)
    keys = [perceptual.keys(name, most) for name in (one, two)]
    assert set(keys[0]) & set(keys[1])
    for found in keys:
        assert len(found) == (most + 1) * (most + 2) // 2 == len(set(found))
        assert all(0 <= key < 2**63 for key in found)


def test_random_hashes_hardly_ever_share_a_key() -> None:
    rng = random.Random(0)
    hashes = [f"{rng.getrandbits(64):016x}" for _ in range(400)]
    keys = [set(perceptual.keys(name, 4)) for name in hashes]
    shared = sum(bool(one & other) for i, one in enumerate(keys) for other in keys[:i])
    assert shared <= 6  # of 79,800 pairs; 15 keys of 21.3 bits: 0.4 are to be expected
