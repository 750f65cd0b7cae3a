"""Trains the stand-in's two heads on matched pairs: features once, then minutes on a CPU.

    train_baseline(pairs, Path("model"), cache=Path("cache"))

Symmetric InfoNCE over the features of two frozen towers, as CLIP's (arXiv 2103.00020, section 2.3):
in a batch of images with one caption each, every image has to find its caption among all others,
and every caption its image. Training ends by the AUC on groups (books) that it does not see.
"""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from udfs.baseline import features as baseline_features
from udfs.baseline import model as baseline_model
from udfs.baseline.features import Features, Pair
from udfs.baseline.model_card import Look, Recipe, Report, card

if TYPE_CHECKING:
    from torch import Tensor

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

VALIDATION_SHARE = 0.05  # of the images, where no group is named for it
MOST_VALIDATION = 2000  # pairs: each of their images is compared with each of their captions
LEAST_TRAINING = 16  # images


class BaselineDataError(ValueError):
    """The pairs cannot train a stand-in; the message says what there is."""


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
    say: Callable[[str], None] = lambda text: None,
) -> Report:
    """Train on `pairs` of (image bytes, caption, group) and write the model folder `output`.

    `validation` names the groups that decide when training ends; without it, some are taken by a
    hash of their names until they hold 5 % of the images. `cache` and the rest as for
    `baseline_features.features`; `towers` replaces those of the wheels. The result does not depend
    on the order of the pairs.

    Raises BaselineDataError for pairs that cannot do, BaselineError and StarterError for wheels.
    """
    started = time.monotonic()
    recipe = recipe or Recipe()
    towers = towers or baseline_model.towers()
    found = baseline_features.features(
        towers, pairs, cache=cache, dtype=dtype, device=device, say=say
    )
    held = validation_images(found.groups, validation)
    heads, looks, best, temperature = train_heads(found, held, recipe, say)
    report = Report(
        recipe=recipe,
        images=len(held) - int(held.sum()),
        captions=int((~held[found.image]).sum()),
        left_out=found.left_out,
        training_groups=_names(found.groups, ~held),
        validation_groups=_names(found.groups, held),
        looks=looks,
        best=best,
        temperature=temperature,
        seconds=time.monotonic() - started,
    )
    baseline_model.save(output, towers, heads, card(report))
    return report


def validation_images(groups: Sequence[str], named: Sequence[str] = ()) -> Bools:
    """Which images (I,) are kept for validation: those of the groups `named`, or of some by hash.

    Raises BaselineDataError where a named group has no images or too few are left to train with.
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
    held = np.array([name in chosen for name in groups], dtype=np.bool_)
    training = len(held) - int(held.sum())
    if training < LEAST_TRAINING or held.sum() < 2:
        raise BaselineDataError(
            f"{training} images to train with and {held.sum()} to validate are too few"
        )
    return held


def train_heads(
    data: Features, held: Bools, recipe: Recipe, say: Callable[[str], None] = lambda text: None
) -> tuple[Any, list[Look], int, float]:
    """Heads for towers of these features, the looks on the way, the best of them, and the
    temperature reached. The images `held` (I,) are validated on, the others trained on."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return _train_heads(data, held, recipe, say)


def _train_heads(
    data: Features, held: Bools, recipe: Recipe, say: Callable[[str], None]
) -> tuple[Any, list[Look], int, float]:
    import torch

    images, image_scale = _standardised(data.images, np.flatnonzero(~held))
    texts, text_scale = _standardised(data.texts, np.unique(data.text[~held[data.image]]))
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
    draw = _Draw(data, ~held, recipe)
    pairs = _validation_pairs(data, held, recipe.seed)
    looks: list[Look] = []
    losses: list[float] = []
    best, best_heads, best_scale = 0, copy.deepcopy(heads), 0.0
    for step in range(1, recipe.steps + 1):
        image, text = draw.batch()
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
        looks.append(Look(step, float(np.mean(losses)), auc))
        losses.clear()
        say(f"step {step}/{recipe.steps}: loss {looks[-1].loss:.3f}, validation AUC {auc:.4f}")
        if best_scale == 0.0 or auc > looks[best].auc:
            best, best_heads = len(looks) - 1, copy.deepcopy(heads)
            best_scale = float(log_scale.detach().exp())
    _fold(best_heads["image"][0], *image_scale)
    _fold(best_heads["text"][0], *text_scale)
    return best_heads.eval(), looks, best, 1 / best_scale


def _loss(
    heads: Any, images: Tensor, texts: Tensor, text: Ints, log_scale: Tensor, dropout: float
) -> Tensor:
    """Symmetric InfoNCE of a batch of matched features, (B, ...) each. The same caption under
    another image of the batch is no mismatch, and left out of the comparison."""
    import torch
    from torch.nn import functional

    image = _unit(heads["image"](functional.dropout(images, dropout)))
    caption = _unit(heads["text"](functional.dropout(texts, dropout)))
    logits = image @ caption.T * log_scale.exp().clamp(max=100)  # (B, B)
    same = torch.from_numpy(text[:, None] == text[None, :]).fill_diagonal_(False)
    logits = logits.masked_fill(same, -torch.inf)
    right = torch.arange(len(text))
    return (functional.cross_entropy(logits, right) + functional.cross_entropy(logits.T, right)) / 2


class _Draw:
    """Batches of different images of the training part, each with one of its captions."""

    def __init__(self, data: Features, training: Bools, recipe: Recipe) -> None:
        order = np.argsort(data.image, kind="stable")
        image = data.image[order]
        self._texts = data.text[order]
        self._images = np.unique(image[training[image]])
        self._first = np.searchsorted(image, self._images, side="left")
        self._count = np.searchsorted(image, self._images, side="right") - self._first
        self._size = min(recipe.images_a_step, len(self._images))
        self._random = np.random.default_rng(recipe.seed)

    def batch(self) -> tuple[Ints, Ints]:
        """Rows of images and of their captions, (B,) each."""
        chosen = self._random.choice(len(self._images), self._size, replace=False)
        caption = self._first[chosen] + self._random.integers(0, self._count[chosen])
        return self._images[chosen], self._texts[caption]


def _validation_pairs(data: Features, held: Bools, seed: int) -> tuple[Ints, Ints]:
    """Rows of images and captions of validation pairs, at most MOST_VALIDATION."""
    pairs = np.flatnonzero(held[data.image])
    if len(pairs) > MOST_VALIDATION:
        chosen = np.random.default_rng(seed).choice(len(pairs), MOST_VALIDATION, replace=False)
        pairs = pairs[np.sort(chosen)]
    return data.image[pairs], data.text[pairs]


def matched_auc(images: Any, texts: Any, image: Ints, text: Ints) -> float:
    """How likely a matched pair is above a mismatched one: each image of the matched pairs with
    each caption that is not its own. `images`, `texts` (P, D) are unit vectors, `image`, `text`
    (P,) say which are the same image or caption."""
    cosines = images @ texts.T  # (P, P)
    own = (image[:, None] == image[None, :]) | (text[:, None] == text[None, :])
    mismatched = np.sort(cosines[~own])
    matched = np.diag(cosines)
    below = np.searchsorted(mismatched, matched, side="left")
    upto = np.searchsorted(mismatched, matched, side="right")
    return float(((below + upto) / 2).mean() / max(len(mismatched), 1))


def _unit(vectors: Tensor) -> Tensor:
    from torch.nn import functional

    return functional.normalize(vectors, dim=-1)


def _standardised(
    features: npt.NDArray[np.float32], rows: Ints
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Features with mean 0 and deviation 1 over `rows`, and this mean and deviation."""
    import torch

    tensor = torch.from_numpy(features)
    mean, deviation = tensor[rows].mean(dim=0), tensor[rows].std(dim=0).clamp(min=1e-6)
    return (tensor - mean) / deviation, (mean, deviation)


def _fold(layer: Any, mean: Tensor, deviation: Tensor) -> None:
    """Let `layer` take features as they are, where it was trained on standardised ones."""
    import torch

    with torch.no_grad():
        layer.weight /= deviation
        layer.bias -= layer.weight @ mean


def _names(groups: Sequence[str], chosen: Bools) -> list[str]:
    return sorted({name for name, is_chosen in zip(groups, chosen, strict=True) if is_chosen})
