"""The report in a real browser: no errors, no requests, every width and both colour schemes."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_report
from PIL import Image

from udfs.report.page import render

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# As root in a container; and without what calls home when it starts.
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
READY = "document.documentElement.dataset.ready === 'yes'"
MINUTE = 60_000
VIEWS = {"light": (1200, 900), "dark": (1200, 900), "phone": (360, 740)}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here (apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(
            executable_path=CHROMIUM, args=ARGUMENTS, timeout=2 * MINUTE
        )
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample pairs' report, with what is hardest to lay out in it."""
    rows = tiny_report.rows()
    galleries = tiny_report.galleries(rows)
    figures = tiny_report.figures(rows)
    figures["rules"][0]["name"] = "a_rule_without_any_space_" * 8
    figures["statuses"].append({"status": "x" * 200, "rows": 10_000_000_000})
    figures["run"].append({"name": "versions", "value": "y" * 220})
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render(figures, galleries), encoding="utf-8")
    return path


def opened(browser: Any, path: Path, view: str, seen: list[str]) -> Any:
    """The page, drawn; everything that it complains of or asks for goes to `seen`."""
    width, height = VIEWS[view]
    scheme = "dark" if view == "dark" else "light"
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    page.set_default_timeout(2 * MINUTE)
    page.on("console", lambda said: seen.append(f"{said.type}: {said.text}"))
    page.on("pageerror", lambda error: seen.append(f"error: {error}"))
    page.on("request", lambda asked: seen.append(asked.url[:200]))
    page.goto(path.as_uri())
    page.wait_for_function(READY)
    return page


@pytest.mark.parametrize("view", VIEWS)
def test_it_is_drawn_without_errors_or_requests(browser: Any, report: Path, view: str) -> None:
    seen: list[str] = []
    page = opened(browser, report, view, seen)
    assert [line for line in seen if not line.startswith("data:")] == [report.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") == VIEWS[view][0]
    widths = page.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert len(widths) == 48
    assert all(widths)
    assert page.locator(".chart svg").count() == 6  # five histograms and the curve
    shot = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("L"))
    assert shot.std() > 10  # something is there
    assert (np.median(shot) < 60) == (view == "dark")
    # Every bar of a histogram is a mark of its own: kept and dropped, where there are rows.
    shares = tiny_report.figures(tiny_report.rows())["signals"][0]["bins"]
    drawn = page.locator("[data-histogram='0'] .mark-rect path").count()
    assert drawn == 2 * len(shares)
    page.close()


def test_the_threshold_says_what_it_keeps(browser: Any, report: Path) -> None:
    rows = tiny_report.rows()
    seen: list[str] = []
    page = opened(browser, report, "phone", seen)

    def answer() -> str:
        return str(page.locator("#answer").inner_text()).replace("\n", " ")

    def expected(metric: str, threshold: float) -> str:
        reached = sum(row[metric] is not None and row[metric] >= threshold for row in rows)
        text = f"{metric} \u2265 {threshold:g} keeps {reached} of {len(rows)} pairs"
        return f"{100 * reached / len(rows):.1f} % {text}"

    slider = page.locator("#threshold")
    for threshold in (66, 20):
        slider.fill(str(threshold))
        assert answer() == expected("itm", threshold)
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert answer() == expected("itm", 21)
    page.get_by_role("button", name="odf").click()
    page.wait_for_function("document.querySelector('#curve').textContent.includes('odf')")
    slider.fill("50")
    assert answer() == expected("odf", 50)
    # The middle of the chart is near the middle of 0..100; the exact place is the axis's affair.
    box = page.locator("#curve svg").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    at = int(slider.input_value())
    assert 35 <= at <= 55
    assert answer() == expected("odf", at)
    page.get_by_role("button", name="clip_score").click()
    page.wait_for_function("document.querySelector('#curve').textContent.includes('clip_score')")
    assert "clip_score \u2265 0." in answer()
    assert not [line for line in seen if line.startswith(("error", "warning"))]
    page.close()


def test_an_empty_selection_is_drawn_too(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "empty.html"
    path.write_text(render(tiny_report.figures([])), encoding="utf-8")
    seen: list[str] = []
    page = opened(browser, path, "phone", seen)
    assert page.get_by_role("heading", level=1).inner_text() == "The selection has no rows."
    assert [line for line in seen if not line.startswith("data:")] == [path.as_uri()]
    page.close()
