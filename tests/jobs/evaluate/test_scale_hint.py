"""Ratings in stars or probabilities get a hint at the options that say so."""

import numpy as np
import pytest

from jobs.evaluate.rated_scores import scale_hint
from jobs.tables.ratings import Range


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        ([1, 2, 5, np.nan], "--rating-low 1 --rating-high 5"),
        ([0, 3, 5], "--rating-low 0 --rating-high 5"),
        ([0.0, 0.25, 1.0], "--rating-low 0 --rating-high 1"),
        ([0, 4, 71], None),
        ([np.nan], None),
    ],
)
def test_the_hint_names_the_range(values: list[float], hint: str | None) -> None:
    found = scale_hint([np.array(values)], Range())
    assert found is None if hint is None else found is not None and found.endswith(hint)
    assert scale_hint([np.array(values)], Range(1, 5)) is None
