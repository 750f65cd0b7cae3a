"""Agreement of scores and ratings, compared with scipy and brute force; coverage of intervals."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from udfs.agreement import plot, resampling
from udfs.agreement.correlation import agreement, calibration, kendall, pearson, spearman
from udfs.agreement.plot import Bar, Curve
from udfs.agreement.ranking import auc, pairs_won
from udfs.agreement.resampling import Bootstrap, Estimate, Floats, Ties

QUICK = Bootstrap(resamples=200)


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def tied(seed: int, rows: int = 200) -> tuple[Floats, Floats]:
    """Scores and ratings with many ties on both sides."""
    rng = np.random.default_rng(seed)
    ratings = 5 * rng.integers(0, 12, rows).astype(np.float64)
    scores: Floats = np.round(ratings + rng.normal(0, 20, rows), -1)
    return scores, ratings


@pytest.mark.parametrize("seed", range(5))
def test_statistics_agree_with_scipy(seed: int) -> None:
    x, y = tied(seed)
    found = agreement(x, y, bootstrap=QUICK)
    assert found.pearson.value == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
    assert found.spearman.value == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert found.kendall.value == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)
    assert found.error.value == pytest.approx(np.abs(x - y).mean())
    assert pearson(x, y) == pytest.approx(found.pearson.value)
    assert spearman(x, y) == pytest.approx(found.spearman.value)
    assert kendall(x, y) == pytest.approx(found.kendall.value, abs=1e-12)
    assert agreement(x * 7 - 3, y, bootstrap=QUICK, same_scale=False).error == Estimate()


def test_a_resample_has_the_statistics_of_the_rows_drawn() -> None:
    x, y = tied(1, 700)  # more than a block of the matrix of signs
    codes = np.arange(700) // 2
    w = next(resampling.weights(codes, 350, Bootstrap(resamples=3)))
    assert w.shape == (3, 700)
    assert (w[:, ::2] == w[:, 1::2]).all()  # an image's rows go together
    assert (w.sum(axis=1) == 700).all()
    a, b = Ties(x), Ties(y)
    r = resampling.correlations(w, resampling.scaled(x), resampling.scaled(y))
    rho = resampling.correlations(w, a.ranks(w), b.ranks(w))
    tau = resampling.kendalls(w, a, b)
    for i, times in enumerate(w.astype(int)):
        rows = np.repeat(np.arange(700), times)
        assert r[i] == pytest.approx(stats.pearsonr(x[rows], y[rows]).statistic, abs=1e-12)
        assert rho[i] == pytest.approx(stats.spearmanr(x[rows], y[rows]).statistic, abs=1e-12)
        assert tau[i] == pytest.approx(stats.kendalltau(x[rows], y[rows]).statistic, abs=1e-12)


def test_intervals_cover_the_truth_as_often_as_claimed() -> None:
    rng = np.random.default_rng(0)
    truth = {"pearson": 0.6, "spearman": 6 / np.pi * np.arcsin(0.3), "kendall": 2 / np.pi * 0.6435}
    covered = dict.fromkeys(truth, 0)
    for _ in range(300):
        x, noise = rng.normal(size=(2, 80))
        found = agreement(x, 0.6 * x + 0.8 * noise, bootstrap=QUICK)
        for name, value in truth.items():
            estimate = getattr(found, name)
            covered[name] += estimate.low <= value <= estimate.high
    # The percentile interval of 80 rows covers a little less than 95 %, and chance adds to that.
    assert all(0.89 <= n / 300 <= 0.985 for n in covered.values()), covered


def test_results_depend_on_the_seed_and_not_on_the_order_of_rows() -> None:
    x, y = tied(2)
    images = np.array([f"image {i // 3}" for i in range(len(x))])
    order = np.random.default_rng(5).permutation(len(x))
    for groups in (images, None):
        found = agreement(x, y, groups, QUICK)
        again = agreement(x[order], y[order], None if groups is None else groups[order], QUICK)
        assert again == found
    other = agreement(x, y, images, Bootstrap(resamples=200, seed=1))
    assert other.spearman.value == agreement(x, y, images, QUICK).spearman.value
    assert other.spearman != agreement(x, y, images, QUICK).spearman
    high = x > 0
    first = auc(x, high, ~high, images, QUICK)
    assert auc(x[order], high[order], ~high[order], images[order], QUICK) == first
    first = pairs_won(x, high, ~high, images, QUICK)
    assert pairs_won(x[order], high[order], ~high[order], images[order], QUICK) == first


def test_copies_of_an_image_do_not_narrow_intervals_if_resampled_together() -> None:
    def width(estimate: Estimate) -> float:
        assert estimate.low is not None
        assert estimate.high is not None
        return estimate.high - estimate.low

    x, y = tied(3)
    images = np.arange(len(x))
    plain = agreement(x, y, images)
    x4, y4, images4 = (np.repeat(values, 4) for values in (x, y, images))
    by_image, naive = agreement(x4, y4, images4), agreement(x4, y4)
    assert by_image.images == 200
    for name in ("pearson", "spearman", "error"):
        assert getattr(by_image, name).value == pytest.approx(getattr(plain, name).value)
        once, copied = width(getattr(plain, name)), width(getattr(by_image, name))
        assert copied == pytest.approx(once, rel=1e-6)
        assert 0.4 * copied < width(getattr(naive, name)) < 0.6 * copied


def test_calibration_has_each_row_once_and_equal_scores_together() -> None:
    scores = np.arange(100.0)
    plain = calibration(scores, scores / 2)
    assert [d.decile for d in plain] == list(range(1, 11))
    assert [d.n for d in plain] == [10] * 10
    assert [d.score for d in plain] == [4.5 + 10 * i for i in range(10)]
    assert [d.rating for d in plain] == [d.score / 2 for d in plain]
    assert (plain[3].lowest, plain[3].highest) == (30, 39)

    x, y = tied(4)
    bins = calibration(np.append(x, np.nan), np.append(y, 1.0))
    assert sum(d.n for d in bins) == len(x)
    assert sum(d.n * d.rating for d in bins) == pytest.approx(y.sum())
    assert all(a.highest < b.lowest for a, b in zip(bins, bins[1:], strict=False))
    assert [d.n for d in calibration([5.0] * 7, [1.0] * 7)] == [7]


@pytest.mark.parametrize("seed", range(3))
def test_auc_is_the_share_of_pairs(seed: int) -> None:
    x, _ = tied(seed, 90)
    rng = np.random.default_rng(seed)
    side, images = rng.integers(0, 3, 90), rng.integers(0, 40, 90)
    x[:4] = np.nan
    found = auc(x, side == 0, side == 1, images, QUICK)
    first, second = (x[(side == s) & np.isfinite(x)] for s in (0, 1))
    wins = [(a > b) + (a == b) / 2 for a in first for b in second]
    assert found.share.value == pytest.approx(np.mean(wins))
    assert (found.first, found.second) == (len(first), len(second))
    assert found.left_out == np.isin(side[:4], (0, 1)).sum()
    assert found.share.low is not None
    assert found.share.high is not None
    assert found.share.low < np.mean(wins) < found.share.high


@pytest.mark.parametrize("seed", range(3))
def test_pairs_won_is_the_mean_over_images(seed: int) -> None:
    x, _ = tied(seed, 120)
    rng = np.random.default_rng(seed)
    side, images = rng.integers(0, 3, 120), rng.integers(0, 40, 120)
    x[:4] = np.nan
    found = pairs_won(x, side == 0, side == 1, images, QUICK)
    shares, rows = [], 0
    for image in range(40):
        of_image = (images == image) & np.isfinite(x)
        first, second = (x[of_image & (side == s)].tolist() for s in (0, 1))
        if first and second:
            shares.append(np.mean([(a > b) + (a == b) / 2 for a in first for b in second]))
            rows += len(first) + len(second)
    assert found.share.value == pytest.approx(np.mean(shares))
    assert found.images == len(shares)
    assert found.first + found.second == rows
    assert rows + found.left_out == np.isin(side, (0, 1)).sum()


NAN = float("nan")


@pytest.mark.parametrize(
    ("scores", "ratings", "reason"),
    [
        ([], [], "fewer than 3 rows"),
        ([1, 2], [3, 4], "fewer than 3 rows"),
        ([1, 2, NAN, None, float("inf")], [3, 4, 5, 6, 7], "fewer than 3 rows"),
        ([7, 7, 7, 7], [1, 2, 3, 4], "all scores are equal"),
        ([1, 2, 3, 4], [0.1, 0.1, 0.1, 0.1], "all ratings are equal"),
    ],
)
def test_a_statistic_that_does_not_exist_is_none_with_a_reason(
    scores: list[Any], ratings: list[Any], reason: str
) -> None:
    found = agreement(scores, ratings)
    assert found.pearson == found.spearman == found.kendall == Estimate()
    assert reason in (found.reason or "")
    assert pearson(scores, ratings) is spearman(scores, ratings) is kendall(scores, ratings) is None


def test_extreme_numbers_and_single_images() -> None:
    huge = [1e308, -1e308, 1e308, 5e-324, 0.0, -0.0]
    found = agreement(huge, [1, 2, 3, 4, 5, 6], bootstrap=QUICK)
    assert found.spearman.value == pytest.approx(stats.spearmanr(huge, range(6)).statistic)
    assert found.n == 6
    single = agreement([1, 2, 3, 4], [1, 3, 2, 4], groups=["image"] * 4)
    assert single.pearson == Estimate(pearson([1, 2, 3, 4], [1, 3, 2, 4]))
    assert single.resamples == 0
    assert "one image" in (single.reason or "")
    assert auc([1.0, 2.0], [True, True], [False, False]).reason
    assert pairs_won([1.0, 2.0], [True, False], [False, True], ["a", "b"]).reason


def test_many_rows_get_fewer_resamples() -> None:
    x, y = tied(6, 3000)
    found = agreement(x, y, bootstrap=Bootstrap(cells=450_000, kendall_rows=2999))
    assert found.resamples == 150
    assert found.spearman.low is not None
    tau = stats.kendalltau(x, y).statistic
    assert found.kendall.value == pytest.approx(tau, abs=1e-12)
    assert found.kendall.low is None
    assert "Kendall" in (found.reason or "")


def test_the_figure_is_drawn_whatever_is_missing(tmp_path: Path) -> None:
    bars = [
        Bar(metric, scorer, column, Estimate(0.5, 0.4, 0.6) if metric == "itm" else Estimate())
        for metric in ("itm", "odf", "ctq", "su")
        for scorer in ("starter", "dual-encoder")
        for column in ("score", "mode")
    ]
    curves = [Curve("itm", "starter", ((10.0, 20.0), (50.0, 60.0))), Curve("su", "starter", ())]
    file = tmp_path / "evaluation.png"
    plot.draw(bars, curves, file, "95 %")
    with Image.open(file) as image:
        assert image.format == "PNG"
        assert image.width > 800
    plot.draw([], [], file, "95 %")
