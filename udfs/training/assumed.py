"""Scores of pairs that no teacher has seen, from what is known of them in training alone.

Of a pair that is made for training it is known whether the caption is the image's own, another's,
or a spoiled copy of its own. A scorer does not see that, but a teacher's scores follow it closely:
boosted trees that are told so are near them on books that they have not seen, without a look at the
image (figures in udfs/starter_adapter/README.md). So a student can learn all four scores from as
many pairs as there are images with captions, not only from the few that a teacher was paid for
(generalized distillation, arXiv 1511.03643).
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from udfs.metrics import METRICS
from udfs.training.examples import Examples, ExamplesError

FEWEST = 60
"""Scored pairs, without which there is nothing to learn from."""
COMMON = 3
"""A word that so many matching captions have is known."""
_WORD = re.compile(r"\w+")


Meanings = Callable[[Sequence[str]], NDArray[np.float32]]
"""Embeddings (N, E) of texts, of unit length: the nearer, the more alike in meaning."""


class Assumed:
    """Assumes scores of (image, caption) pairs of `examples`, from those that are scored there.

    With `meanings` it also knows how near a caption is in meaning to the image's own: of captions
    that do not match, some come nearer than others.

    Raises ExamplesError where fewer than FEWEST pairs have scores of some metric.
    """

    def __init__(self, examples: Examples, seed: int = 0, meanings: Meanings | None = None) -> None:
        self._examples = examples
        self._meanings = meanings
        matching = {text for own in examples.captions for text in own}
        seen = Counter(word for text in matching for word in set(_words(text)))
        self._common = {word for word, count in seen.items() if count >= COMMON}
        self._owners: dict[str, list[int]] = {}
        for image, own in enumerate(examples.captions):
            for text in own:
                self._owners.setdefault(text, []).append(image)
        self._models = self._learn(seed)

    def scores(
        self, pairs: Sequence[tuple[int, str]], facts: NDArray[np.float64] | None = None
    ) -> NDArray[np.float64]:
        """Scores (P, 4) of pairs, 0..100, in the order of METRICS. `facts` about them are made
        where they are not given."""
        facts = self._with_nearness(pairs, self.facts(pairs) if facts is None else facts)
        found = np.stack([model.predict(facts) for model in self._models], axis=1)
        clipped: NDArray[np.float64] = np.clip(found, 0, 100)
        return clipped

    def facts(self, pairs: Sequence[tuple[int, str]]) -> NDArray[np.float64]:
        """What is known of pairs without a model, in numbers (P, K): whose caption it is, how it
        differs from the image's own, and how it is written."""
        return np.array([self._facts(*pair) for pair in pairs])

    def _facts(self, image: int, caption: str) -> list[float]:
        own = self._examples.captions[image]
        owners = self._owners.get(caption, [])
        groups = self._examples.groups
        words = _words(caption)
        found = [(_likeness(text, caption), text) for text in own]
        likeness, source = max(found, key=lambda pair: pair[0], default=(0.0, ""))
        source_words = _words(source)
        said = set(source_words)
        count = max(1, len(words))
        return [
            float(caption in own),
            float(bool(owners) and image not in owners),
            float(any(groups[owner] == groups[image] for owner in owners if owner != image)),
            likeness,
            difflib.SequenceMatcher(None, source_words, words, autojunk=False).ratio(),
            sum(word in said for word in words) / count,
            len(said.intersection(words)) / max(1, len(said)),
            sum(word not in self._common for word in words) / count,
            len(set(words)) / count,
            len(words),
            sum(map(len, words)) / count,
            *(
                len(re.findall(p, caption)) / count
                for p in (",", r"\.", "[A-Z]", "[0-9]", r"[_/|]")
            ),
            float(caption.rstrip().endswith((".", "?", "!"))),
            float(caption[:1].isupper()),
        ]

    def nearness(self, pairs: Sequence[tuple[int, str]]) -> NDArray[np.float64]:
        """Cosines (P, 2) of captions' meanings: with the nearest of the image's own captions, and
        with the nearest of those that are not the same text. NaN where there is none."""
        assert self._meanings is not None
        captions = self._examples.captions
        texts = list(dict.fromkeys(t for image, text in pairs for t in (text, *captions[image])))
        rows = dict(zip(texts, self._meanings(texts), strict=True))
        found = np.full((len(pairs), 2), np.nan)
        for at, (image, text) in enumerate(pairs):
            for column, own in enumerate(
                (captions[image], [each for each in captions[image] if each != text])
            ):
                found[at, column] = max((float(rows[text] @ rows[o]) for o in own), default=np.nan)
        return found

    def _with_nearness(
        self, pairs: Sequence[tuple[int, str]], facts: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        return facts if self._meanings is None else np.hstack([facts, self.nearness(pairs)])

    def _learn(self, seed: int) -> list[Any]:
        """A model of each metric."""
        from sklearn.ensemble import HistGradientBoostingRegressor

        scored = self._examples.scored
        pairs = [(pair.image, pair.caption) for pair in scored]
        facts = self._with_nearness(pairs, self.facts(pairs))
        models = []
        for m, metric in enumerate(METRICS):
            scores = np.array([pair.scores[m] for pair in scored])
            rows = ~np.isnan(scores)
            if rows.sum() < FEWEST:
                raise ExamplesError(
                    f"assume needs {FEWEST} pairs with scores of {metric}; there are {rows.sum()}"
                )
            model = HistGradientBoostingRegressor(
                max_iter=120,
                learning_rate=0.06,
                max_leaf_nodes=12,
                l2_regularization=1.0,
                early_stopping=False,
                random_state=seed,
            )
            models.append(model.fit(facts[rows], scores[rows]))
        return models


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _likeness(a: str, b: str) -> float:
    """Share of two texts' letters that stand in both in the same order, roughly (0..1)."""
    return difflib.SequenceMatcher(None, a, b, autojunk=False).quick_ratio()
