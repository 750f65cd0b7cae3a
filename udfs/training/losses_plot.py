"""The losses of a training as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from udfs.training.recipe import Weights

LOSSES = tuple(Weights.model_fields)


def draw(history: list[dict[str, Any]], path: Path) -> None:
    """Write a PNG with a panel a loss over all steps: each step thin, a running mean bold, and a
    line where a new stage begins."""
    # Not pyplot: it would keep figures, and choose a window system.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [name for name in LOSSES if any(name in step for step in history)]
    figure = Figure(figsize=(8, 0.6 + 1.9 * max(1, len(names))), layout="constrained")
    panels = figure.subplots(max(1, len(names)), 1, squeeze=False, sharex=True)[:, 0]
    stages = [step["stage"] for step in history]
    begins = [i for i in range(1, len(stages)) if stages[i] != stages[i - 1]]
    for axes, name in zip(panels, names, strict=False):
        at = np.array([i for i, step in enumerate(history) if name in step])
        values = np.array([history[i][name] for i in at])
        axes.plot(at, values, color="#56B4E9", linewidth=0.7)
        # A mean over stages' borders would show a jump that is none.
        for begin, end in zip([0, *begins], [*begins, len(history)], strict=True):
            inside = (at >= begin) & (at < end)
            if inside.sum() > 1:
                axes.plot(at[inside], _smooth(values[inside]), color="#0072B2", linewidth=1.8)
        for begin in begins:
            axes.axvline(begin, color="#999999", linewidth=0.8, linestyle=":")
        axes.set_ylabel(name)
        axes.grid(color="#dddddd")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("step")
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png", dpi=110, metadata={"Software": None})


def _smooth(values: np.ndarray[Any, np.dtype[np.float64]]) -> Any:
    """Mean over a twentieth of the steps around each, narrower at the ends."""
    half = max(1, len(values) // 40)
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    return (total[high] - total[low]) / (high - low)
