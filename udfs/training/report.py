"""What came of a training, in a model folder: a model card, curves, figures.

README.md          the model card
losses.png         the losses over the steps
history.json       one entry a step
evaluation.json    agreement with the teacher on what was held out
matching.json      whether its captions are told from those of other images
recipe.json        the recipe
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from udfs.agreement.resampling import Estimate
from udfs.core.metrics import METRIC_NAMES, METRICS
from udfs.training import losses_plot, sampling
from udfs.training.examples import Examples
from udfs.training.recipe import Recipe
from udfs.training.score_balance import BINS


@dataclass(frozen=True)
class Report:
    """What the model card tells. `data` are the finetune job's counts (may be empty), `evaluation`
    and `matching` as `held_out.py` gives them, `trained` the number of learned weights."""

    recipe: Recipe
    base: str
    merged: bool
    data: dict[str, Any]
    examples: Examples
    history: list[dict[str, Any]]
    evaluation: list[dict[str, Any]]
    matching: dict[str, Any]
    trained: int
    took: dict[str, float]


def first_and_last(report: Report) -> dict[str, dict[str, list[float]]]:
    """Stage -> loss -> its mean over the first and the last tenth of the stage's steps."""
    result: dict[str, dict[str, list[float]]] = {}
    for stage in report.recipe.stages:
        steps = [step for step in report.history if step["stage"] == stage.name]
        part = max(1, len(steps) // 10)
        for loss in losses_plot.LOSSES:
            ends = [[s[loss] for s in side if loss in s] for side in (steps[:part], steps[-part:])]
            if all(ends):
                means = [round(float(np.mean(values)), 4) for values in ends]
                result.setdefault(stage.name, {})[loss] = means
    return result


def write(folder: Path, report: Report) -> None:
    """Write all of it into a model folder."""
    dumped = report.recipe.model_dump(mode="json")
    for name, content in (
        ("history.json", report.history),
        ("evaluation.json", report.evaluation),
        ("matching.json", report.matching),
        ("recipe.json", dumped),
    ):
        text = json.dumps(content, indent=None if name == "history.json" else 1)
        (folder / name).write_text(text + "\n", encoding="utf-8")
    losses_plot.draw(report.history, folder / "losses.png")
    (folder / "README.md").write_text(card(report), encoding="utf-8")


def card(report: Report) -> str:
    """The model card."""
    recipe = report.recipe
    adapts = recipe.lora is not None and not report.merged
    base = _public(report.base)
    front = {
        "library_name": "peft" if adapts else "transformers",
        "pipeline_tag": "image-text-to-text",
        "base_model": base,
        "tags": ["mlm-filter", "data-filtering"],
    }
    what = "An adapter (low-rank weights and projector) of" if adapts else "Fine-tuned from"
    how = ", ".join(f"{metric}: {METRIC_NAMES[metric]}" for metric in METRICS)
    return "\n".join(
        [
            f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
            "# A scorer of image-caption pairs",
            "",
            f"{what} `{base}` by `mlm-filter finetune`: gives a pair four scores, 0..100 ({how}).",
            "Score with `mlm-filter score --model FOLDER`; `mlm_filter.json` holds the prompt.",
            f"{report.trained / 1e6:.2f}M weights were trained.",
            "",
            "## How well it agrees with its teacher",
            "",
            _evaluation(report),
            "",
            *_matching(report.matching),
            "## Data",
            "",
            _data(report),
            "",
            "## Balance",
            "",
            _balance(report),
            "",
            "## Losses",
            "",
            _losses(report),
            "",
            "![losses](losses.png)",
            "",
            "## Known limits",
            "",
            _limits(report),
            "",
            "## Recipe",
            "",
            "```yaml",
            yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False).rstrip(),
            "```",
            "",
        ]
    )


def _public(base: str) -> str:
    """A base model's name without a path of this machine."""
    return Path(base).name if base.startswith(("/", ".", "~")) else base


def _evaluation(report: Report) -> str:
    if not report.evaluation:
        return "Not measured: nothing was held out, or nothing of it has a teacher's score."
    groups = ", ".join(report.data.get("held_out", [])) or "held-out pairs"
    lines = []
    for row in report.evaluation:
        cells = [_estimate(row[name], digits) for name, digits in _STATISTICS]
        lines.append([row["metric"], row["reading"], f"{row['n']:,}", *cells])
    names = ["Pearson", "Spearman", "Kendall", "mean error"]
    table = _table(["metric", "reading", "pairs", *names], lines)
    return (
        f"On {groups}, never trained on. In brackets 95 % bootstrap intervals by image; the error"
        f" is in points.\n\n{table}"
    )


def _matching(found: dict[str, Any]) -> list[str]:
    """A paragraph, where it was measured."""
    if not found:
        return []
    return [
        f"ITM of {found['first']:,} held-out captions with their image against {found['second']:,}"
        f" with another held-out one: AUC {_estimate(found['share'], 3)}.",
        "",
    ]


_STATISTICS = (("pearson", 2), ("spearman", 2), ("kendall", 2), ("error", 1))


def _estimate(found: dict[str, float | None], digits: int) -> str:
    estimate = Estimate(**found)
    if estimate.value is None:
        return "-"
    text = f"{estimate.value:.{digits}f}"
    if estimate.low is not None and estimate.high is not None:
        text += f" [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"
    return text


def _data(report: Report) -> str:
    data, examples = report.examples, report.data
    captions = sum(map(len, data.captions))
    scored = np.array([pair.scores for pair in data.scored]).reshape(-1, len(METRICS))
    rows = ", ".join(
        f"{metric} {int(n):,}"
        for metric, n in zip(METRICS, (~np.isnan(scored)).sum(axis=0), strict=True)
    )
    reasons = sum(bool(reason) for pair in data.scored for reason in pair.reasons)
    groups = sorted({group for group in data.groups if group})
    shown = ", ".join(groups[:30]) + (" ..." if len(groups) > 30 else "")
    lines = [
        f"- {len(data.uids):,} images with {captions:,} captions that match them",
        f"- {len(data.scored):,} pairs with a teacher's scores ({rows}), {reasons:,} reasons",
    ]
    if groups:
        lines.append(f"- {len(groups):,} groups: {shown}")
    if held := examples.get("held_out"):
        lines.append(f"- held out whole: {', '.join(held)}")
    for what in ("instructions", "captions"):
        if lost := examples.get("left_out", {}).get(what):
            counts = ", ".join(f"{reason} {n:,}" for reason, n in sorted(lost.items()))
            lines.append(f"- left out of the {what}: {counts}")
    return "\n".join(lines)


def _balance(report: Report) -> str:
    data = report.examples
    stages = [stage for stage in report.recipe.stages if stage.weights.score]
    if not stages or not data.scored:
        return "No scores were trained."
    epoch = sampling.epoch_of_scores(data, (report.recipe.seed, stages[0].name), 0)
    width = 100 // BINS
    lines = []
    for m, metric in enumerate(METRICS):
        before = [pair.scores[m] for pair in data.scored if not np.isnan(pair.scores[m])]
        after = [data.scored[i].scores[m] for i, metrics in epoch for n in metrics if n == m]
        for what, values in (("teacher", before), ("an epoch", after)):
            counts, _ = np.histogram(values, bins=BINS, range=(0, 100))
            lines.append([metric, what, *map(str, counts)])
    header = ["metric", "scores of", *(f"{b * width}-" for b in range(BINS))]
    return (
        "Each epoch is a sample that is flat over the values of each metric's scores, as far as"
        f" there are rows (no row more than three times its share).\n\n{_table(header, lines)}"
    )


def _losses(report: Report) -> str:
    lines = [
        [stage, loss, f"{first:.3f}", f"{last:.3f}"]
        for stage, found in first_and_last(report).items()
        for loss, (first, last) in found.items()
    ]
    took = (
        f"{len(report.history):,} steps. The last run took"
        f" {report.took.get('seconds', 0) / 60:.0f} min in"
        f" {int(report.took.get('processes', 1))} process(es), evaluation not counted."
    )
    return f"{took}\n\n{_table(['stage', 'loss', 'first tenth', 'last tenth'], lines)}"


def _limits(report: Report) -> str:
    longest = max(stage.caption_tokens for stage in report.recipe.stages)
    lines = [
        "- It has learned one teacher's taste, from the kinds of images and captions above; on"
        " others its scores are less sure, and their order means more than their value.",
        f"- In training captions were cut at {longest} tokens; what comes later in longer ones was"
        " never weighed.",
        "- Languages and kinds of images that the data does not have were not tested.",
        "- A score says nothing about harm, bias or rights.",
    ]
    if not report.evaluation:
        lines.append("- How well it agrees with its teacher was not measured.")
    return "\n".join(lines)


def _table(header: list[str], lines: list[list[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
