"""Trains the baseline's two heads on matched pairs: minutes on a CPU once features are cached.

    train_baseline(pairs, Path("model"), cache=Path("cache"))

Symmetric InfoNCE over the features of two frozen towers, as in CLIP (arXiv 2103.00020, section
2.3): in a batch of images with one caption each, every image has to find its caption among all
others, and every caption its image. The heads with the best AUC on held-out groups (books) are
saved.
"""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from udfs.baseline import features as baseline_features
from udfs.baseline import model as baseline_model
from udfs.baseline.features import Features, Pair, Progress
from udfs.baseline.model_card import Recipe, Report, Validation, card

if TYPE_CHECKING:
    from torch import Tensor

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

VALIDATION_SHARE = 0.05  # of the images, if no validation group is named
MAX_VALIDATION_PAIRS = 2000  # each of their images is compared with each of their captions
MIN_TRAINING_IMAGES = 16


class BaselineDataError(ValueError):
    """The pairs cannot train a baseline; the message says why."""


def train_baseline(
    pairs: Iterable[Pair],
    output: Path,
    *,
    validation: Sequence[str] = (),
    recipe: Recipe | None = None,
    cache: Path | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    towers: baseline_model.Towers | None = None,
    progress: Progress = lambda text: None,
) -> Report:
    """Train on `pairs` of (image bytes, caption, group) and write the model folder `output`.

    `validation` names the groups that decide which step is saved; if empty, groups are chosen by a
    hash of their names until they hold 5 % of the images. `cache`, `dtype`, `device` and `progress`
    as for `baseline_features.features`; `towers` replaces those from the wheels. The result does
    not depend on the order of the pairs.

    Raises BaselineDataError for unsuitable pairs, BaselineError and StarterError for wheels.
    """
    started = time.monotonic()
    recipe = recipe or Recipe()
    towers = towers or baseline_model.towers()
    data = baseline_features.features(
        towers, pairs, cache=cache, dtype=dtype, device=device, progress=progress
    )
    is_validation = validation_images(data.groups, validation)
    heads, validations, best, temperature = train_heads(data, is_validation, recipe, progress)
    report = Report(
        recipe=recipe,
        images=int((~is_validation).sum()),
        captions=int((~is_validation[data.image]).sum()),
        left_out=data.left_out,
        training_groups=_names(data.groups, ~is_validation),
        validation_groups=_names(data.groups, is_validation),
        validations=validations,
        best=best,
        temperature=temperature,
        seconds=time.monotonic() - started,
    )
    baseline_model.save(output, towers, heads, card(report))
    return report


def validation_images(groups: Sequence[str], named: Sequence[str] = ()) -> Bools:
    """Which images (I,) are for validation: those of the groups `named`, or else of groups chosen
    by a hash of their names.

    Raises BaselineDataError if a named group has no images or too few are left for training.
    """
    if absent := sorted(set(named) - set(groups)):
        raise BaselineDataError(f"no images of the validation group {absent[0]}")
    chosen = set(named)
    if not named:
        by_hash = sorted(set(groups), key=lambda name: hashlib.sha256(name.encode()).digest())
        counts = {name: 0 for name in by_hash}
        for name in groups:
            counts[name] += 1
        taken = 0
        for name in by_hash:
            if taken >= VALIDATION_SHARE * len(groups):
                break
            chosen.add(name)
            taken += counts[name]
    is_validation = np.array([name in chosen for name in groups], dtype=np.bool_)
    training, validating = int((~is_validation).sum()), int(is_validation.sum())
    if training < MIN_TRAINING_IMAGES or validating < 2:
        raise BaselineDataError(
            f"{training} images to train with and {validating} to validate are too few"
        )
    return is_validation


def train_heads(
    data: Features, is_validation: Bools, recipe: Recipe, progress: Progress = lambda text: None
) -> tuple[Any, list[Validation], int, float]:
    """The heads of the best step, the validations, the index of the best one, and its temperature.

    Images are for validation where `is_validation` (I,) is true, else for training.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return _train_heads(data, is_validation, recipe, progress)


def _train_heads(
    data: Features, is_validation: Bools, recipe: Recipe, progress: Progress
) -> tuple[Any, list[Validation], int, float]:
    import torch

    training_texts = np.unique(data.text[~is_validation[data.image]])
    images, image_scale = _standardised(data.images, np.flatnonzero(~is_validation))
    texts, text_scale = _standardised(data.texts, training_texts)
    heads = baseline_model.heads(
        images.shape[1], texts.shape[1], recipe.hidden, recipe.embedding, recipe.dropout
    )
    log_scale = torch.nn.Parameter(torch.tensor(-float(np.log(recipe.temperature))))
    optimizer = torch.optim.AdamW(
        [
            {"params": list(heads.parameters()), "weight_decay": recipe.weight_decay},
            {"params": [log_scale], "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=recipe.steps, pct_start=0.1
    )
    sampler = _BatchSampler(data, ~is_validation, recipe)
    pairs = _validation_pairs(data, is_validation, recipe.seed)
    validations: list[Validation] = []
    losses: list[float] = []
    best, best_heads, best_scale = 0, copy.deepcopy(heads), 0.0
    for step in range(1, recipe.steps + 1):
        image, text = sampler.batch()
        heads.train()
        loss = _loss(heads, images[image], texts[text], text, log_scale, recipe.dropout)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if step % recipe.check_every and step < recipe.steps:
            continue
        heads.eval()
        with torch.inference_mode():
            auc = matched_auc(
                _unit(heads["image"](images[pairs[0]])).numpy(),
                _unit(heads["text"](texts[pairs[1]])).numpy(),
                *pairs,
            )
        loss_mean = float(np.mean(losses))
        validations.append(Validation(step, loss_mean, auc))
        losses.clear()
        progress(f"step {step}/{recipe.steps}: loss {loss_mean:.3f}, validation AUC {auc:.4f}")
        if best_scale == 0.0 or auc > validations[best].auc:
            best, best_heads = len(validations) - 1, copy.deepcopy(heads)
            best_scale = float(log_scale.detach().exp())
    _fold(best_heads["image"][0], *image_scale)
    _fold(best_heads["text"][0], *text_scale)
    return best_heads.eval(), validations, best, 1 / best_scale


def _loss(
    heads: Any, images: Tensor, texts: Tensor, text: Ints, log_scale: Tensor, dropout: float
) -> Tensor:
    """Symmetric InfoNCE of a batch of matched features, (B, ...) each. If another image of the
    batch has the same caption, the two are not a mismatch and are left out of the comparison."""
    import torch
    from torch.nn import functional

    image = _unit(heads["image"](functional.dropout(images, dropout)))
    caption = _unit(heads["text"](functional.dropout(texts, dropout)))
    logits = image @ caption.T * log_scale.exp().clamp(max=100)  # (B, B)
    same = torch.from_numpy(text[:, None] == text[None, :]).fill_diagonal_(False)
    logits = logits.masked_fill(same, -torch.inf)
    target = torch.arange(len(text))
    by_image, by_text = (functional.cross_entropy(x, target) for x in (logits, logits.T))
    return (by_image + by_text) / 2


class _BatchSampler:
    """Draws batches of different training images, each with one of its captions."""

    def __init__(self, data: Features, training: Bools, recipe: Recipe) -> None:
        order = np.argsort(data.image, kind="stable")
        image = data.image[order]
        self._texts = data.text[order]
        self._images = np.unique(image[training[image]])
        self._first = np.searchsorted(image, self._images, side="left")
        self._count = np.searchsorted(image, self._images, side="right") - self._first
        self._size = min(recipe.images_per_step, len(self._images))
        self._random = np.random.default_rng(recipe.seed)

    def batch(self) -> tuple[Ints, Ints]:
        """Rows of images and of their captions, (B,) each."""
        chosen = self._random.choice(len(self._images), self._size, replace=False)
        caption = self._first[chosen] + self._random.integers(0, self._count[chosen])
        return self._images[chosen], self._texts[caption]


def _validation_pairs(data: Features, is_validation: Bools, seed: int) -> tuple[Ints, Ints]:
    """Rows of images and captions of the validation pairs, at most MAX_VALIDATION_PAIRS."""
    pairs = np.flatnonzero(is_validation[data.image])
    if len(pairs) > MAX_VALIDATION_PAIRS:
        chosen = np.random.default_rng(seed).choice(len(pairs), MAX_VALIDATION_PAIRS, replace=False)
        pairs = pairs[np.sort(chosen)]
    return data.image[pairs], data.text[pairs]


def matched_auc(images: Any, texts: Any, image: Ints, text: Ints) -> float:
    """The probability that a matched pair scores above a mismatched one: each image of the matched
    pairs with each caption that is not its own. `images`, `texts` (P, D) are unit vectors; equal
    numbers in `image`, `text` (P,) mean the same image or caption."""
    cosines = images @ texts.T  # (P, P)
    same = (image[:, None] == image[None, :]) | (text[:, None] == text[None, :])
    mismatched = np.sort(cosines[~same])
    matched = np.diag(cosines)
    below = np.searchsorted(mismatched, matched, side="left")
    not_above = np.searchsorted(mismatched, matched, side="right")
    return float(((below + not_above) / 2).mean() / max(len(mismatched), 1))


def _unit(vectors: Tensor) -> Tensor:
    from torch.nn import functional

    return functional.normalize(vectors, dim=-1)


def _standardised(
    features: npt.NDArray[np.float32], rows: Ints
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Features with mean 0 and standard deviation 1 over `rows`; and the mean and deviation."""
    import torch

    tensor = torch.from_numpy(features)
    mean, deviation = tensor[rows].mean(dim=0), tensor[rows].std(dim=0).clamp(min=1e-6)
    return (tensor - mean) / deviation, (mean, deviation)


def _fold(layer: Any, mean: Tensor, deviation: Tensor) -> None:
    """Fold the standardisation into a layer that was trained on standardised features."""
    import torch

    with torch.no_grad():
        layer.weight /= deviation
        layer.bias -= layer.weight @ mean


def _names(groups: Sequence[str], chosen: Bools) -> list[str]:
    return sorted({name for name, is_chosen in zip(groups, chosen, strict=True) if is_chosen})
