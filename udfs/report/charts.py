"""Vega-Lite specifications of the charts; colours come from the page, for light and dark mode."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

_KEPT, _DROPPED = "var(--kept)", "var(--dropped)"
_FONT = "system-ui, sans-serif"
_CONFIG = {
    "background": "transparent",
    "view": {"stroke": None},
    "axis": {
        "domain": False,
        "ticks": False,
        "gridColor": "var(--line)",
        "labelColor": "var(--soft)",
        "labelFont": _FONT,
        "labelFontSize": 12,
        "labelPadding": 6,
        "titleColor": "var(--soft)",
        "titleFont": _FONT,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    },
    "axisX": {"grid": False, "labelOverlap": "greedy", "tickCount": 5},
    "axisY": {"tickCount": 4},
}


@cache
def library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that needs no network. Takes seconds.

    Raises:
        ImportError: the package that bundles them (extra `report`) is not installed.
    """
    import vl_convert

    bundle = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # its stub is wrong
    return bundle.replace("</script", "<\\/script")


def histogram(signal: Mapping[str, Any]) -> dict[str, Any]:
    """The distribution of a signal's values: kept rows at the bottom, dropped rows above them."""
    values = [
        {
            "from": bin_["from"],
            "to": bin_["to"],
            "rows": rows,
            "what": what,
            "range": f"{bin_['from']:.10g} to {bin_['to']:.10g}",
        }
        for bin_ in signal["bins"]
        for what, rows in (("kept", bin_["kept"]), ("dropped", bin_["rows"] - bin_["kept"]))
    ]
    ends = [signal["bins"][0]["from"], signal["bins"][-1]["to"]]
    return _chart(
        f"Histogram of {signal['name']}: rows by value, kept and dropped",
        130,
        data={"values": values},
        mark={"type": "bar", "binSpacing": 1},
        encoding={
            "x": {
                "field": "from",
                "type": "quantitative",
                "bin": {"binned": True},
                "title": None,
                "scale": {"domain": ends, "nice": False},
            },
            "x2": {"field": "to"},
            "y": {
                "field": "rows",
                "type": "quantitative",
                "stack": "zero",
                "title": None,
                "axis": {"format": "~s", "tickMinStep": 1},
            },
            "color": {
                "field": "what",
                "type": "nominal",
                "scale": {"domain": ["kept", "dropped"], "range": [_KEPT, _DROPPED]},
                "legend": None,
            },
            "order": {"field": "what", "sort": "descending"},  # kept first, at the bottom
            "tooltip": [
                {"field": "range", "type": "nominal", "title": signal["name"]},
                {"field": "what", "type": "nominal", "title": "rows that are"},
                {"field": "rows", "type": "quantitative", "title": "rows", "format": ","},
            ],
        },
    )


def curve(signal: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """The share of all `rows` at or above each threshold; Vega's signal `threshold` is the line."""
    values = [
        {"threshold": threshold, "share": count / rows if rows else 0.0}
        for threshold, count in zip(signal["thresholds"], signal["rows_at_or_above"], strict=True)
    ]
    x = {
        "field": "threshold",
        "type": "quantitative",
        "title": f"threshold of {signal['name']}",
        "scale": {"domain": [values[0]["threshold"], values[-1]["threshold"]], "nice": False},
    }
    y = {
        "field": "share",
        "type": "quantitative",
        "title": None,
        "scale": {"domain": [0, 1]},
        "axis": {"format": ".0%"},
    }
    at_threshold = [{"filter": "datum.threshold === threshold"}]
    area = {"line": {"color": _KEPT, "strokeWidth": 2}, "color": _KEPT, "fillOpacity": 0.14}
    return _chart(
        f"Share of rows at or above a threshold of {signal['name']}",
        240,
        params=[{"name": "threshold", "value": values[0]["threshold"]}],
        data={"values": values},
        layer=[
            {"mark": {"type": "area", **area}, "encoding": {"x": x, "y": y}},
            {
                "transform": at_threshold,
                "mark": {"type": "rule", "color": "var(--ink)", "strokeDash": [3, 3]},
                "encoding": {"x": x},
            },
            {
                "transform": at_threshold,
                "mark": {"type": "point", "filled": True, "size": 90, "color": "var(--ink)"},
                "encoding": {"x": x, "y": y},
            },
        ],
    )


def _chart(description: str, height: int, **parts: Any) -> dict[str, Any]:
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",  # a name; never fetched
        "description": description,
        "width": "container",
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "config": _CONFIG,
        **parts,
    }
