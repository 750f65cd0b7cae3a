"""Renders figures and pictures as one HTML page that needs no network and no other file.

All text from the data is escaped, only scripts with known hashes run, and the page's security
policy forbids every request.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from udfs.core.metrics import METRIC_NAMES
from udfs.report import charts, text_format
from udfs.report.thumbnails import Gallery

MARK = "<!-- mlm-filter report -->"
"""The second line of every report; a file without it is not one of ours."""


def render(figures: Mapping[str, Any], galleries: Sequence[Gallery] = ()) -> str:
    """The page for `figures`, with the keys of jobs/report/figures.py.

    The page contains the figures unchanged, as JSON in `<script id="figures">`. Raises ImportError
    if the extra `report` is not installed.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "number": text_format.number,
        "share": text_format.share,
        "score": text_format.score,
        "edge": text_format.edge,
        "cut": text_format.cut,
        "source": _data_url,
    }
    specifications = {
        "histograms": {s["name"]: charts.histogram(s) for s in figures["signals"] if s["bins"]},
        "curves": {
            s["name"]: charts.curve(s, figures["rows"]) for s in figures["signals"] if s["bins"]
        },
    }
    scripts = [charts.library(), _file("page.js")]
    return environment.from_string(_file("page.html.j2")).render(
        mark=MARK,
        policy=_policy(scripts),
        style=_file("page.css"),
        scripts=scripts,
        figures=figures,
        figures_json=inert_json(figures),
        charts_json=inert_json(specifications),
        galleries=galleries,
        names=METRIC_NAMES,
        parts=text_format.parts,
        steps=_funnel(figures),
    )


def inert_json(value: Any) -> str:
    """JSON that is safe in a script element: nothing in it ends the element or opens another."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=True)  # escapes lone surrogates too
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _policy(scripts: Sequence[str]) -> str:
    digests = [
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts
    ]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    # Inline styles: the charts and the lengths of bars use style attributes.
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:;"
        " base-uri 'none'; form-action 'none'"
    )


def _funnel(figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The remaining rows, step by step: all, those with scores, after each rule."""
    rows, scored = figures["rows"], figures["scored"]
    steps = [{"name": "all pairs", "rows": rows, "removed": None, "passed": None}]
    steps.append({"name": "with scores", "rows": scored, "removed": rows - scored, "passed": None})
    for rule in figures["rules"]:
        counts = {"rows": rule["left"], "removed": rule["failed_first"], "passed": rule["passed"]}
        steps.append({"name": rule["name"], **counts})
    return steps


def _data_url(thumbnail: bytes) -> str:
    return "data:image/webp;base64," + base64.b64encode(thumbnail).decode("ascii")


def _file(name: str) -> str:
    return (files(__package__ or __name__) / name).read_text(encoding="utf-8")
