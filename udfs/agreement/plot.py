"""Draws the figure of an evaluation: correlations with their intervals, and calibration curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from udfs.agreement.resampling import Estimate
from udfs.core.metrics import METRIC_NAMES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which the colour-blind can tell apart too
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#000000")
_STYLES = ("-", "--", ":", "-.")  # for more scorers than colours


@dataclass(frozen=True)
class Bar:
    """One correlation: of which metric, by which scorer, from which of its columns."""

    metric: str
    scorer: str
    column: str
    correlation: Estimate


@dataclass(frozen=True)
class Curve:
    """Points (mean score, mean rating), both 0..100, by decile of one scorer's score."""

    metric: str
    scorer: str
    points: tuple[tuple[float, float], ...]


def draw(bars: Sequence[Bar], curves: Sequence[Curve], path: Path, interval: str) -> None:
    """Write the figure as PNG: a column for each metric, with bars at the top and curves below.

    A bar without a value leaves a gap, and a curve without points is left out. `interval` describes
    the whiskers, e.g. "95 % intervals".
    """
    # Not pyplot, which would keep figures in memory and choose a window system.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    metrics = list(dict.fromkeys([*(b.metric for b in bars), *(c.metric for c in curves)]))
    scorers = list(dict.fromkeys([*(b.scorer for b in bars), *(c.scorer for c in curves)]))
    rows = list(dict.fromkeys((bar.scorer, bar.column) for bar in bars))
    upper = 0.9 + 0.32 * max(1, len(rows))
    figure = Figure(figsize=(2.2 + 2.9 * max(1, len(metrics)), upper + 3.6), layout="constrained")
    grid = figure.subplots(
        2, max(1, len(metrics)), squeeze=False, height_ratios=(upper, 3.2), sharey="row"
    )
    for number, metric in enumerate(metrics):
        metric_bars = [bar for bar in bars if bar.metric == metric]
        _draw_bars(grid[0, number], metric_bars, rows, scorers, metric)
        grid[0, number].set_xlabel(f"Spearman ({interval})" if number == 0 else "Spearman")
        _draw_curves(grid[1, number], [c for c in curves if c.metric == metric], scorers)
    grid[0, 0].set_ylim(
        max(0.5, len(rows) - 0.5), -0.5
    )  # the first row on top; all axes of the row share it
    grid[1, 0].set_ylabel("mean rating")
    drawn = {line.get_label(): line for axes in grid[1] for line in axes.get_lines()}
    drawn = {label: line for label, line in drawn.items() if label in scorers}
    if len(scorers) > 1 and drawn:
        figure.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=4)
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png", dpi=130, metadata={"Software": None})


def _draw_bars(
    axes: Axes,
    bars: Sequence[Bar],
    rows: Sequence[tuple[str, str]],
    scorers: Sequence[str],
    metric: str,
) -> None:
    name = METRIC_NAMES.get(metric)
    axes.set_title(f"{metric}\n{name}" if name else metric, fontsize=10)
    low = -0.02
    for bar in bars:
        value = bar.correlation.value
        if value is None:
            continue
        y = rows.index((bar.scorer, bar.column))
        ends = [end for end in (bar.correlation.low, bar.correlation.high) if end is not None]
        axes.barh(
            y,
            value,
            height=0.7,
            color=_colour(bar.scorer, scorers),
            alpha=1.0 if bar.column in (bar.metric, "score") else 0.55,
        )
        right = max(0.0, value)
        if len(ends) == 2:
            axes.plot(ends, [y, y], color="#333333", linewidth=1.4, marker="|", markersize=6)
            right, low = max(right, ends[1]), min(low, ends[0])
        axes.text(right + 0.02, y, f"{value:.2f}", va="center", fontsize=8)
        low = min(low, value)
    axes.set_xlim(low, 1.15)
    axes.set_xticks([tick for tick in (-1, -0.5, 0, 0.5, 1) if tick >= low])
    axes.axvline(0, color="#333333", linewidth=0.8)
    axes.grid(axis="x", color="#dddddd")
    axes.set_axisbelow(True)
    axes.set_yticks(range(len(rows)), [f"{scorer}: {column}" for scorer, column in rows])
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_curves(axes: Axes, curves: Sequence[Curve], scorers: Sequence[str]) -> None:
    axes.plot((0, 100), (0, 100), color="#999999", linewidth=0.8, linestyle=":")
    for curve in curves:
        if curve.points:
            axes.plot(
                *zip(*curve.points, strict=True),
                color=_colour(curve.scorer, scorers),
                linestyle=_STYLES[scorers.index(curve.scorer) // len(_COLOURS) % len(_STYLES)],
                marker="o",
                markersize=4,
                label=curve.scorer,
            )
    if not any(curve.points for curve in curves):
        axes.text(50, 50, "no scores on 0..100", ha="center", va="center", color="#777777")
    axes.set(xlim=(-2, 102), ylim=(-2, 102), xlabel="mean score, by decile of the score")
    axes.set_aspect("equal")
    axes.grid(color="#dddddd")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _colour(scorer: str, scorers: Sequence[str]) -> str:
    return _COLOURS[scorers.index(scorer) % len(_COLOURS)]
