"""What a trained model makes of held-out examples, scored as the score job does it: how far it
agrees with the teacher, and whether it tells an image's captions from those of others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from udfs.agreement.correlation import agreement
from udfs.agreement.ranking import auc
from udfs.core.metrics import ITM, METRICS
from udfs.scoring.batching import PairScorer
from udfs.training import sampling
from udfs.training.examples import Examples

READINGS = ("expectation", "mode")
IMAGES, OTHERS = 1500, 2
"""Matching is measured on so many images, with so many captions of others for each: an AUC of 0.9
has a standard error of 0.005 then. With 300 images it is 0.010, more than recipes differ."""
PIECE = 64  # pairs scored between two lines of progress

Say = Callable[[str], None]


def agreements(scorer: PairScorer, held_out: Examples, say: Say) -> list[dict[str, Any]]:
    """Scores of pairs that the teacher scored as well: one row a metric and reading (expectation,
    mode), as `udfs.agreement.correlation` gives it, with 95 % intervals by image."""
    if not held_out.scored:
        return []
    pairs = [(pair.image, pair.caption) for pair in held_out.scored]
    found = _scores(scorer, held_out, pairs, "held-out pairs scored", say)
    ratings = np.array([pair.scores for pair in held_out.scored])
    uids = [held_out.uids[pair.image] for pair in held_out.scored]
    rows = []
    for reading, scores in zip(READINGS, found, strict=True):
        for m, metric in enumerate(METRICS):
            result = asdict(agreement(scores[:, m], ratings[:, m], groups=uids))
            rows.append({"metric": metric, "reading": reading} | result)
    return rows


def matching(scorer: PairScorer, held_out: Examples, say: Say) -> dict[str, Any]:
    """How likely an image's own caption gets more ITM (its mean) than one of another image, over
    all pairs of both kinds: the area under the curve, as `udfs.agreement.ranking.auc` gives it.
    Empty where there is none. Chance in what is asked comes from the uids alone."""
    pairs, own = drawn(held_out)
    if own.all():
        return {}
    found = _scores(scorer, held_out, pairs, "held-out captions matched", say)
    uids = [held_out.uids[image] for image, _ in pairs]
    return asdict(auc(found[0, :, ITM], own, ~own, groups=uids))


def drawn(held_out: Examples) -> tuple[list[tuple[int, str]], NDArray[np.bool_]]:
    """(image, caption) pairs and whether the caption is the image's own."""
    captioned = [image for image, captions in enumerate(held_out.captions) if captions]
    draws = {image: sampling.rng("matching", held_out.uids[image]) for image in captioned}
    pairs: list[tuple[int, str]] = []
    for image in sorted(captioned, key=lambda each: float(draws[each].random()))[:IMAGES]:
        draw, mine = draws[image], held_out.captions[image]
        texts = [mine[draw.integers(len(mine))]]
        others = [each for each in captioned if each != image]
        for other in draw.choice(others, min(OTHERS, len(others)), replace=False).tolist():
            theirs = held_out.captions[other]
            text = theirs[draw.integers(len(theirs))]
            if text not in mine:
                texts.append(text)
        pairs += [(image, text) for text in texts]
    own = [text in held_out.captions[image] for image, text in pairs]
    return pairs, np.array(own, dtype=bool)


def _scores(
    scorer: PairScorer, held_out: Examples, pairs: Sequence[tuple[int, str]], what: str, say: Say
) -> NDArray[np.float64]:
    """Both readings of all scores (2, P, 4), NaN where there are none."""
    found = np.full((len(READINGS), len(pairs), len(METRICS)), np.nan)
    for start in range(0, len(pairs), PIECE):
        part = pairs[start : start + PIECE]
        answers = scorer.score([held_out.images[i] for i, _ in part], [text for _, text in part])
        for row, answer in enumerate(answers, start):
            if answer.distributions is not None:
                found[:, row] = answer.expectation, answer.mode
        say(f"{what}: {start + len(part)} of {len(pairs)}")
    return found
