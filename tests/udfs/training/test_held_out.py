"""How a trained model does on what was held out: does it tell an image's captions from others?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from udfs.scoring.batching import PairScorer, Prepared
from udfs.scoring.results import OK, Scored
from udfs.training import held_out
from udfs.training.examples import Examples


class Judge(PairScorer):
    """Gives whatever ITM it is told to, and 50 for the rest."""

    def __init__(self, itm: Callable[[bytes, str], int]) -> None:
        self.itm = itm

    def prepare(self, image: Any, caption: Any) -> Prepared:
        scores = [self.itm(image, caption), 50, 50, 50]
        return Prepared(None, Scored(OK, None, np.eye(101)[scores]))

    def score_prepared(self, prepared: Sequence[Prepared]) -> list[Scored]:
        return [each.answer for each in prepared]


def examples(names: Sequence[str]) -> Examples:
    """Images whose bytes begin each of their two captions."""
    return Examples(
        uids=[f"uid of {name}" for name in names],
        images=[name.encode() for name in names],
        groups=[""] * len(names),
        captions=[[f"{name}, literally", f"{name}, in its context"] for name in names],
        scored=[],
    )


def matching(itm: Callable[[bytes, str], int], held: Examples) -> Any:
    return held_out.matching(Judge(itm), held, lambda _: None)


def told(image: bytes, text: str) -> bool:
    return text.startswith(f"{image.decode()},")


def test_matching_is_the_share_of_pairs_in_the_right_order() -> None:
    held = examples([f"{n}" for n in range(held_out.IMAGES + 50)])
    found = matching(lambda image, text: 90 if told(image, text) else 10, held)
    assert found["share"]["value"] == 1
    assert (found["first"], found["second"]) == (held_out.IMAGES, 2 * held_out.IMAGES)
    assert found["images"] == held_out.IMAGES
    assert matching(lambda image, text: 50, held)["share"]["value"] == 0.5
    # Over all pairs, not image by image: half of the images get so much that their strangers win.
    found = matching(lambda image, text: 40 * (int(image) % 2) + 10 * told(image, text), held)
    assert found["share"]["value"] == pytest.approx(0.75, abs=0.03)


def test_what_is_asked_depends_on_the_uids_alone() -> None:
    names = [f"{n}" for n in range(held_out.IMAGES + 50)]
    pairs, own = held_out.drawn(held := examples(names))
    assert [told(held.images[image], text) for image, text in pairs] == own.tolist()
    turned = examples(names[::-1])
    again, _ = held_out.drawn(turned)
    images = [held.uids[image] for image, _ in pairs]
    assert [turned.uids[image] for image, _ in again] == images
    assert len(set(images)) == held_out.IMAGES
    assert len({text for _, text in pairs}) > held_out.IMAGES


@pytest.mark.parametrize("names", [[], ["alone"]])
def test_nothing_to_match_is_no_figure(names: list[str]) -> None:
    assert matching(lambda image, text: 50, examples(names)) == {}
