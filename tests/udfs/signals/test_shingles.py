"""What captions that are nearly the same have in common."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from udfs.signals import shingles

UNHURRIED = settings(deadline=None)  # the machine may be busy


@UNHURRIED
@given(st.text())
def test_shingles_fold_case_and_white_space(text: str) -> None:
    same = shingles.normalized(text)
    assert shingles.normalized(f" {same}\n") == same
    found = shingles.shingles(same)
    assert found == sorted(set(found))
    assert shingles.similarity(found, found) == (1 if same else 0)
    assert len(shingles.keys(found)) == (shingles.BANDS if same else 0)


def test_similar_captions_share_keys_and_others_do_not() -> None:
    """With the seed given, the keys are the same everywhere, so that this is no matter of luck."""
    rng = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(rng.choices(letters, k=rng.randint(3, 9))) for _ in range(500)]
    near = missed = met = 0
    for _ in range(150):
        caption = rng.choices(words, k=14)
        other = list(caption)
        other[rng.randrange(14)] = rng.choice(words)
        one, two, far = (
            shingles.shingles(shingles.normalized(" ".join(text)))
            for text in (caption, other, rng.choices(words, k=14))
        )
        met += bool(set(shingles.keys(one)) & set(shingles.keys(far)))
        if shingles.similarity(one, two) >= 0.75:
            near += 1
            missed += not set(shingles.keys(one)) & set(shingles.keys(two))
    assert near > 60
    assert missed == 0
    assert met <= 3


def test_keys_do_not_change_from_machine_to_machine() -> None:
    found = shingles.keys(shingles.shingles("a brown dog in the park"))
    assert found[:2] == [8339055590397258582, 1952480648742224959]
    assert all(-(2**63) <= key < 2**63 for key in found)
