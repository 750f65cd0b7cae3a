"""Shingles and keys of captions that are nearly the same."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from udfs.signals import shingles

NO_DEADLINE = settings(deadline=None)  # the machine may be busy


@NO_DEADLINE
@given(st.text())
def test_shingles_fold_case_and_white_space(text: str) -> None:
    normalized = shingles.normalized(text)
    assert shingles.normalized(f" {normalized}\n") == normalized
    found = shingles.shingles(normalized)
    assert found == sorted(set(found))
    assert shingles.similarity(found, found) == (1 if normalized else 0)
    assert len(shingles.keys(found)) == (shingles.BANDS if normalized else 0)


def test_similar_captions_share_keys_and_others_do_not() -> None:
    """With a fixed seed the keys are the same everywhere, so the result does not vary."""
    rng = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(rng.choices(letters, k=rng.randint(3, 9))) for _ in range(500)]
    similar = missed = false_matches = 0
    for _ in range(150):
        caption = rng.choices(words, k=14)
        edited = list(caption)
        edited[rng.randrange(14)] = rng.choice(words)
        original, near, far = (
            shingles.shingles(shingles.normalized(" ".join(text)))
            for text in (caption, edited, rng.choices(words, k=14))
        )
        false_matches += bool(set(shingles.keys(original)) & set(shingles.keys(far)))
        if shingles.similarity(original, near) >= 0.75:
            similar += 1
            missed += not set(shingles.keys(original)) & set(shingles.keys(near))
    assert similar > 60
    assert missed == 0
    assert false_matches <= 3


def test_keys_do_not_change_from_machine_to_machine() -> None:
    found = shingles.keys(shingles.shingles("a brown dog in the park"))
    assert found[:2] == [8339055590397258582, 1952480648742224959]
    assert all(-(2**63) <= key < 2**63 for key in found)
