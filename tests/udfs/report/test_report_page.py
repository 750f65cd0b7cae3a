"""The report's page without Spark: exact grids, hostile text, and what the HTML contains."""

import html
import io
import json
import math
import re
from bisect import bisect_right
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_report
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import encoded, picture
from PIL import Image

from udfs.inputs.image_roots import ImageRoots
from udfs.inputs.images import ImageError
from udfs.report import histogram_bins, text_format
from udfs.report.page import render
from udfs.report.thumbnails import (
    MAX_BYTES,
    MAX_PICTURES,
    SIDE,
    Gallery,
    Picture,
    Strip,
    thumbnail,
    thumbnail_or_problem,
)

FINITE = st.floats(allow_nan=False, allow_infinity=False)
HOSTILE = (
    "</script><script>alert(1)</script> <img src=x onerror=alert(2)> \u202eevil\u202c"
    " ]]> {{ 7*7 }} ${x} \x00\x07 \ud800 &amp; " + "e\u0301\u0301\u0301\u0301\u0301\u0301"
)


@settings(deadline=None)
@given(st.lists(FINITE, min_size=1, max_size=60), st.booleans())
def test_cells_hold_every_value_once_and_bins_add_up(values: list[float], metric: bool) -> None:
    grid = histogram_bins.grid(min(values), max(values), metric)
    thresholds = grid.thresholds
    assert len(thresholds) <= histogram_bins.STEPS + 2
    assert list(thresholds) == sorted(set(thresholds))
    assert all(math.isfinite(threshold) for threshold in thresholds)
    assert thresholds[0] <= min(values)
    cells = [0] * len(thresholds)
    for value in values:
        cells[bisect_right(thresholds, value) - 1] += 1
    assert histogram_bins.at_or_above(cells) == [sum(v >= t for v in values) for t in thresholds]
    bins = histogram_bins.bins(grid, cells, cells)
    assert sum(b.rows for b in bins) == len(values)
    assert [b.low for b in bins[1:]] == [b.high for b in bins[:-1]]
    assert all(b.low < b.high for b in bins) or len(set(values)) == 1


def test_a_metric_is_counted_at_whole_numbers() -> None:
    grid = histogram_bins.grid(3.2, 99.9, is_metric=True)
    assert grid.thresholds == tuple(map(float, range(101)))
    assert len(histogram_bins.bins(grid, [1] * 101, [0] * 101)) == 20  # 100 is in the last one
    assert histogram_bins.grid(0.0713, 0.357).thresholds[:3] == (0.07, 0.075, 0.08)


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 10, "0 %"),
        (10, 10, "100 %"),
        (0, 0, "\u2013"),
        (1, 3, "33.3 %"),
        (9_999_999, 10_000_000, "over 99.9 %"),
        (1, 10_000_000, "0.00001 %"),
    ],
)
def test_a_share_is_never_rounded_to_none_or_all(part: int, whole: int, text: str) -> None:
    assert text_format.share(part, whole) == text


@settings(deadline=None)
@given(st.text() | st.binary() | st.none())
def test_any_text_becomes_one_short_line(text: str | bytes | None) -> None:
    first, second, remaining = text_format.parts(text, 30, 20)
    assert len(first) <= 30
    assert len(second) <= 20
    assert remaining >= 0
    assert not re.search(r"[\x00-\x1f\x7f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", first + second)
    (first + second).encode()


def test_a_long_caption_is_cut_and_says_how_much_is_missing() -> None:
    first, second, remaining = text_format.parts("word " * 20_000)
    assert (len(first), len(second)) == (119, text_format.SECOND)
    assert remaining == 20_000 * 5 - 1 - len(first) - len(second)


def test_thumbnails_are_small_and_a_damaged_image_has_a_reason(tmp_path: Path) -> None:
    noise = Image.effect_noise((1500, 900), 120).convert("RGB")
    for image in (noise, picture(3, 2), picture(2000, 10)):
        data = thumbnail(encoded(image))
        assert len(data) <= MAX_BYTES
        assert max(Image.open(io.BytesIO(data)).size) <= SIDE
    assert thumbnail_or_problem(b"<html>", None) == (
        None,
        "not an image of a known format (an HTML page)",
    )
    assert thumbnail_or_problem(None, None) == (None, "no image (null)")
    roots = ImageRoots.of([str(tmp_path)])
    missing = thumbnail_or_problem(None, f"{tmp_path}/gone.png", roots)
    assert missing == (None, "cannot read .../gone.png: No such file or directory")
    with pytest.raises(ImageError):
        thumbnail(b"\x89PNG\r\n\x1a\n" + bytes(50))


@pytest.fixture(scope="module")
def page() -> str:
    rows = tiny_report.rows()
    return render(tiny_report.figures(rows), tiny_report.galleries(rows))


def figures_in(page: str) -> object:
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.S)
    assert found
    return json.loads(found.group(1))


def test_the_page_holds_the_figures_as_they_are_and_stays_small(page: str) -> None:
    assert figures_in(page) == tiny_report.figures(tiny_report.rows())
    assert len(page.encode()) < 5_000_000
    assert "51</em> of 252 pairs" in page
    assert page.count("data:image/webp;base64,") == 48


def test_the_page_refers_to_nothing_outside(page: str) -> None:
    markup = re.sub(r"<script\b.*?</script>", "", page, flags=re.S)
    urls = re.findall(r'\b(?:src|href|action|data|poster|srcset)="([^"]*)"', markup)
    assert urls
    assert all(url.startswith(("data:", "#")) for url in urls)
    (style,) = re.findall(r"<style>(.*?)</style>", markup, re.S)
    assert not re.search(r"url\(|@import|//", style)
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    policy = html.unescape(policy)
    assert policy.startswith("default-src 'none';")
    assert "unsafe-eval" not in policy
    (scripts,) = re.findall(r"script-src ([^;]*);", policy)
    assert len(re.findall(r"'sha256-[A-Za-z0-9+/]{43}='", scripts)) == len(scripts.split()) == 2


def test_hostile_data_stays_text() -> None:
    rows = tiny_report.rows()[:20]
    for row in rows:
        row["rules"] = {HOSTILE + name: ok for name, ok in row["rules"].items()}
        row["first_failed_rule"] = HOSTILE + str(row["first_failed_rule"])
    rows[0] |= {"status": HOSTILE, "reason": HOSTILE * 100}
    figures = tiny_report.figures(rows)
    figures["title"] = figures["signals"][0]["name"] = HOSTILE
    figures["notes"] = [HOSTILE]
    figures["run"] = [{"name": HOSTILE, "value": HOSTILE}]
    figures["correlations"]["names"][1] = HOSTILE
    pair = Picture(HOSTILE, 1.0, HOSTILE.encode("utf-8", "surrogatepass"), False)
    pair = replace(pair, scores={HOSTILE: 1.0}, problem=HOSTILE, reason=HOSTILE)
    pairs = (pair, replace(pair, caption=None), replace(pair, caption="x" * 99999))
    page = render(figures, [Gallery(HOSTILE, HOSTILE, (Strip(HOSTILE, pairs),), HOSTILE)])
    page.encode()
    assert page.count("<script>") == page.count("</script>") - 2 == 2
    assert "<img src=x" not in page
    assert "\u202e" not in page
    assert "49" not in re.findall(r"\{\{.*?\}\}", page)
    assert figures_in(page)


def test_the_largest_possible_page_stays_small() -> None:
    large = Picture("u" * 99, 1.0, "<" * 9999, False, bytes(range(256)) * (MAX_BYTES // 256))
    large = replace(large, scores={"itm": 1.0, "odf": 2.0}, first_failed_rule="&" * 999)
    strip = Strip("best", (large,) * MAX_PICTURES)
    page = render(tiny_report.figures(tiny_report.rows()), [Gallery("itm", "itm", (strip,))])
    assert len(page.encode()) < 5_000_000


def test_a_selection_without_rows_or_kept_rows_has_a_page_too() -> None:
    empty = render(tiny_report.figures([]))
    assert "The selection has no rows." in empty
    none_kept = tiny_report.judged(tiny_report.rows(), match=1000)
    assert "<em>None</em> of 252 pairs is kept" in render(tiny_report.figures(none_kept))
    large = tiny_report.figures(tiny_report.rows())
    large |= {"rows": 10_000_000, "scored": 9_999_999, "kept": 3_000_000, "combine": "or"}
    large["rules"][0]["remaining"] = large["rules"][1]["remaining"] = None
    assert "of 10,000,000 pairs are kept" in render(large)
