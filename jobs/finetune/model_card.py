"""What came of a training, as a model card: agreement with the teacher, data, settings, losses."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from udfs.agreement.correlation import agreement
from udfs.agreement.resampling import Estimate
from udfs.core.metrics import METRIC_NAMES, METRICS

from .settings import FinetuneConfig

READINGS = ("expectation", "mode")


def agreements(predictions: dict[str, Any]) -> list[dict[str, Any]]:
    """How far the model agrees with the teacher on held-out pairs: one row a metric and reading,
    as `udfs.agreement.correlation` gives it, with 95 % intervals by image."""
    scores, ratings = (np.array(predictions[name]) for name in ("scores", "ratings"))
    return [
        {"metric": metric, "reading": reading}
        | asdict(agreement(scores[:, r, m], ratings[:, m], groups=predictions["uids"]))
        for r, reading in enumerate(READINGS)
        for m, metric in enumerate(METRICS)
        if not np.isnan(ratings[:, m]).all()
    ]


def model_card(
    config: FinetuneConfig, data: dict[str, Any], result: dict[str, Any], rows: list[dict[str, Any]]
) -> str:
    """The card in Markdown, with the front matter of a model hub."""
    adapter = result["adapter"]
    what = "An adapter of" if adapter else "A model fine-tuned from"
    metrics = ", ".join(f"{metric}: {METRIC_NAMES[metric]}" for metric in METRICS)
    lines = [
        "---",
        f"library_name: {'peft' if adapter else 'transformers'}",
        "pipeline_tag: image-text-to-text",
        *([f"base_model: {config.model}"] if "/" not in config.model[:1] else []),
        "tags: [mlm-filter, data-filtering]",
        "---",
        "# A scorer of image-caption pairs",
        "",
        f"{what} `{config.model}`, made by `mlm-filter finetune`: four scores, 0..100, for a pair"
        f" ({metrics}). `mlm_filter.json` holds the prompt.",
        "",
        "## Agreement with the teacher",
        "",
        *_agreement_table(config, rows),
        "",
        "## Data",
        "",
        f"- instructions: {_listed(data['instructions'])}; {data['images']:,} images",
        f"- held out: {_listed(data['held_out'])}",
        f"- conversations: {data['conversations']:,}",
        f"- left out: {_listed(data['left_out'])}",
        "",
        "## Training",
        "",
        f"{result['steps']:,} steps, {result['trained_weights'] / 1e6:.2f}M trained weights,"
        f" {'packed' if result['packed'] else 'plain'} sequences,"
        f" {result['seconds'] / 60:.1f} minutes.",
        "",
        *_loss_table(result["losses"]),
        "",
        "```yaml",
        *_settings(config),
        "```",
    ]
    return "\n".join(lines) + "\n"


def _agreement_table(config: FinetuneConfig, rows: list[dict[str, Any]]) -> list[str]:
    if not rows:
        return ["Nothing was held out (`--hold-out`), so nothing was measured."]
    lines = [
        f"On {', '.join(config.hold_out)}, which were never trained on. In brackets 95 % bootstrap"
        " intervals by image; the error is in points.",
        "",
        "| metric | reading | pairs | Pearson | Spearman | Kendall | mean error |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        cells = [str(Estimate(**row[name])) for name in ("pearson", "spearman", "kendall", "error")]
        lines.append(f"| {row['metric']} | {row['reading']} | {row['n']:,} | {' | '.join(cells)} |")
    return lines


def _loss_table(log: list[dict[str, Any]]) -> list[str]:
    found = [entry for entry in log if "loss" in entry]
    if not found:
        return []
    names = [n for n in found[0] if n not in ("learning_rate", "epoch", "step", "grad_norm")]
    picked = sorted({round(i * (len(found) - 1) / 9) for i in range(10)})
    lines = [f"| step | {' | '.join(names)} |", f"| --- {'| --- ' * len(names)}|"]
    for i in picked:
        cells = [f"{found[i][name]:.4g}" if name in found[i] else "-" for name in names]
        lines.append(f"| {found[i]['step']:,} | {' | '.join(cells)} |")
    return lines


def _settings(config: FinetuneConfig) -> list[str]:
    """What a user set, as YAML that `--conf` takes."""
    import yaml

    chosen = config.model_dump(mode="json", exclude_defaults=True, exclude={"output", "work"})
    return yaml.safe_dump(chosen, sort_keys=False, allow_unicode=True).splitlines()


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "none"
