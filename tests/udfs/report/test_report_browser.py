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
# For root in a container; and without the services that connect to the network at the start.
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
    """The report of the sample pairs, with values that are hard to lay out."""
    rows = tiny_report.rows()
    galleries = tiny_report.galleries(rows)
    figures = tiny_report.figures(rows)
    figures["rules"][0]["name"] = "a_rule_without_any_space_" * 8
    figures["statuses"].append({"status": "x" * 200, "rows": 10_000_000_000})
    figures["run"].append({"name": "versions", "value": "y" * 220})
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render(figures, galleries), encoding="utf-8")
    return path


def open_page(browser: Any, path: Path, view: str, events: list[str]) -> Any:
    """The page, drawn; its console messages, errors and requests are added to `events`."""
    width, height = VIEWS[view]
    scheme = "dark" if view == "dark" else "light"
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    page.set_default_timeout(2 * MINUTE)
    page.on("console", lambda message: events.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: events.append(f"error: {error}"))
    page.on("request", lambda request: events.append(request.url[:200]))
    page.goto(path.as_uri())
    page.wait_for_function(READY)
    return page


@pytest.mark.parametrize("view", VIEWS)
def test_it_is_drawn_without_errors_or_requests(browser: Any, report: Path, view: str) -> None:
    events: list[str] = []
    page = open_page(browser, report, view, events)
    assert [line for line in events if not line.startswith("data:")] == [report.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") == VIEWS[view][0]
    widths = page.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert len(widths) == 48
    assert all(widths)
    assert page.locator(".chart svg").count() == 6  # five histograms and the curve
    screenshot = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("L"))
    assert screenshot.std() > 10  # not blank
    assert (np.median(screenshot) < 60) == (view == "dark")
    # Every bin of a histogram has two bars: kept and dropped.
    bins = tiny_report.figures(tiny_report.rows())["signals"][0]["bins"]
    bars = page.locator("[data-histogram='0'] .mark-rect path").count()
    assert bars == 2 * len(bins)
    page.close()


def test_the_threshold_says_what_it_keeps(browser: Any, report: Path) -> None:
    rows = tiny_report.rows()
    events: list[str] = []
    page = open_page(browser, report, "phone", events)

    def answer() -> str:
        return str(page.locator("#answer").inner_text()).replace("\n", " ")

    def expected(metric: str, threshold: float) -> str:
        count = sum(row[metric] is not None and row[metric] >= threshold for row in rows)
        text = f"{metric} \u2265 {threshold:g} keeps {count} of {len(rows)} pairs"
        return f"{100 * count / len(rows):.1f} % {text}"

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
    # The middle of the chart is near the middle of 0..100; where exactly depends on the axis.
    box = page.locator("#curve svg").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    threshold = int(slider.input_value())
    assert 35 <= threshold <= 55
    assert answer() == expected("odf", threshold)
    page.get_by_role("button", name="clip_score").click()
    page.wait_for_function("document.querySelector('#curve').textContent.includes('clip_score')")
    assert "clip_score \u2265 0." in answer()
    assert not [line for line in events if line.startswith(("error", "warning"))]
    page.close()


def test_an_empty_selection_is_drawn_too(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "empty.html"
    path.write_text(render(tiny_report.figures([])), encoding="utf-8")
    events: list[str] = []
    page = open_page(browser, path, "phone", events)
    assert page.get_by_role("heading", level=1).inner_text() == "The selection has no rows."
    assert [line for line in events if not line.startswith("data:")] == [path.as_uri()]
    page.close()
