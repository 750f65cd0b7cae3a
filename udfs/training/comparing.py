"""The layer whose MLP compares caption and image, and the loss that gives it something to compare.

A gated MLP multiplies: silu(gate(x)) * up(x). As silu(z) - silu(-z) = z, two of its channels whose
gates have opposite signs give the exact product of a number that the gate reads and one that `up`
reads. With R such couples, where the gate's adapter reads R coordinates of the caption and that of
`up` the same R coordinates of the image (`common_space.py`), the MLP's output is their inner
product: how well the two match, at once, where a language model that has never seen an image would
have to find out that a product of just these tells anything. `prime` writes this into the adapters
of gate, up and down; what they read at first is the best that ridge regression finds in the state.

The `compare` loss then teaches the layers below to bring both sides' coordinates to where they are
read: to the token behind a caption, and to the questions about match and detail, whatever image
stands before the caption. How much of the coordinates' variance is missed there is the loss.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch  # noqa: TID253 - as in objective.py

from udfs.metrics import ITM, ODF
from udfs.training import features, low_rank, sampling
from udfs.training.common_space import CommonSpace, common_space
from udfs.training.inputs import Inputs
from udfs.training.recipe import Stage
from udfs.training.student import Student

if TYPE_CHECKING:
    from torch import Tensor

ASKED = (ITM, ODF)
RIDGE = 1.0
"""Of the regression, in units of the states' mean variance."""
LOUD = 4.0
"""What a couple of channels reads is so much larger than what these channels, the quietest, had to
say before: less would be drowned by that, more be loud in what `down` makes of them already."""
GAIN = 1.0
"""Spread that the match of random pairs has in each dimension of the MLP's output, in units of that
output's own spread there."""


class Seen(NamedTuple):
    """What the MLP reads (R, 3, D) where R captions are read behind images, and what it should find
    there: coordinates of the captions and of the images, each (R, C)."""

    states: Tensor
    captions: Tensor
    images: Tensor


def space(inputs: Inputs) -> CommonSpace:
    """The coordinates of the examples' captions (by their index in `inputs.texts`) and images: as
    many as the adapter can read."""
    assert inputs.sentences is not None
    assert inputs.recipe.lora is not None
    means = features.means(inputs.features)
    return common_space(inputs.sentences, means, inputs.matching(), inputs.recipe.lora.rank)


def compare(
    inputs: Inputs,
    coordinates: CommonSpace,
    pairs: Sequence[tuple[int, str]],
    others: Sequence[int],
    stage: Stage,
    turn: int,
) -> Tensor:
    """The share of the coordinates' variance that is not read, that of captions and of images
    added. `others` are texts by index, as many for each of the pairs' images."""
    seen = look(inputs, coordinates, pairs, others, stage, turn)
    gate, up, _ = projections(inputs.student, stage.compare_depth)
    return _missed(_read(gate, seen.states), seen.captions) + _missed(
        _read(up, seen.states), seen.images
    )


def look(
    inputs: Inputs,
    coordinates: CommonSpace,
    pairs: Sequence[tuple[int, str]],
    others: Sequence[int],
    stage: Stage,
    turn: int,
) -> Seen:
    """Captions behind images: each image's own, and as many of the `others` for each."""
    student = inputs.student
    device = student.model.device
    beside = len(others) // max(1, len(pairs))
    trees, places, texts, shown = [], [], [], []
    for row, (image, caption) in enumerate(pairs):
        tree, last = student.with_image()
        trees.append(tree)
        for text in (inputs.text_rows[caption], *others[row * beside : (row + 1) * beside]):
            tip = inputs.tell(tree, last, inputs.texts[text], stage)
            asked = [tree.extend(tip, student.template.questions[m]) for m in ASKED]
            places += [(row, column) for column in (tip, *asked)]
            texts.append(text)
            shown.append(image)
    with student.autocast():  # `prime` looks outside of a step
        images = inputs.images([image for image, _ in pairs], stage, turn)
        read = student.before_mlp(trees, images, stage.compare_depth)
    rows, columns = zip(*places, strict=True)
    states = read[list(rows), list(columns)].float()
    return Seen(
        states.view(len(texts), 1 + len(ASKED), -1),
        torch.from_numpy(coordinates.captions[texts]).to(device),
        torch.from_numpy(coordinates.images[shown]).to(device),
    )


@torch.no_grad()
def prime(student: Student, depth: int, batches: Iterable[Seen]) -> None:
    """Write into the adapters of one layer's MLP what they shall read, by ridge regression over
    `batches`, and the product of both, into a direction of the residual stream that is drawn.

    The couples take the channels that are quietest on these states. Raises ValueError for an MLP
    that is not a gated one with an adapter.
    """
    gate, up, down = projections(student, depth)
    states, captions, images = (torch.cat(part) for part in zip(*batches, strict=True))
    read, size = states.shape[1], captions.shape[1]
    wanted = torch.cat([captions, images], dim=1).repeat_interleave(read, dim=0)
    states = states.flatten(0, 1)
    readers = _regression(states, wanted).split(size, dim=1)
    values = [states @ reader for reader in readers]
    before = [states @ low_rank.base(layer).T for layer in (gate, up)]
    rms = [x.square().mean(dim=0).sqrt() for x in before]
    quiet = torch.argsort(rms[0] / rms[0].median() + rms[1] / rms[1].median())[: 2 * size]
    sign = torch.tensor([1.0, -1.0], device=states.device).repeat(size)
    coordinate = torch.arange(size, device=states.device).repeat_interleave(2)
    scales = [
        LOUD * float(r[quiet].median() / value.square().mean().sqrt())
        for r, value in zip(rms, values, strict=True)
    ]
    for layer, reader, scale, signs in zip(
        (gate, up), readers, scales, (sign, sign.abs()), strict=True
    ):
        low, high, scaling = low_rank.matrices(layer)
        low[:size] = reader.T
        high.zero_()
        high[quiet, coordinate] = signs * scale / scaling
    active = torch.nn.functional.silu(before[0]) * before[1]
    usual = (active @ low_rank.base(down).T).std(dim=0).median()
    match = (values[0] * values[1]).sum(dim=1)
    low, high, scaling = low_rank.matrices(down)
    even = (scales[0] * scales[1]) ** -0.5  # half of undoing the scales in each matrix
    low[0] = 0
    low[0, quiet] = sign * even
    draw = sampling.rng(student.recipe.seed, "match", depth).choice([-1.0, 1.0], len(high))
    high.zero_()
    high[:, 0] = torch.from_numpy(draw).to(high) * even * GAIN * usual / match.std()
    high[:, 0] /= scaling


def projections(student: Student, depth: int) -> tuple[Any, Any, Any]:
    """Gate, up and down of one layer's MLP. Raises ValueError where they have no adapters."""
    mlp = student.core.language_model.layers[depth].mlp
    gate, up, down = (getattr(mlp, f"{name}_proj", None) for name in ("gate", "up", "down"))
    if not all(hasattr(layer, "lora_A") for layer in (gate, up, down)):
        raise ValueError(
            "`compare` needs gated MLPs (gate_proj, up_proj, down_proj) with an adapter"
        )
    return gate, up, down


def _read(layer: Any, states: Tensor) -> Tensor:
    """What the adapter of a projection reads, (..., rank)."""
    found: Tensor = layer.lora_A["default"](states)
    return found


def _missed(found: Tensor, wanted: Tensor) -> Tensor:
    """Squared distance of (R, 3, rank) from (R, C), in units of the variance of the latter."""
    size = wanted.shape[1]
    distance = (found[..., :size] - wanted[:, None]).square().sum(dim=-1).mean()
    return distance / wanted.square().sum(dim=-1).mean()


def _regression(states: Tensor, wanted: Tensor) -> Tensor:
    """(D, 2C) of states (R, D) against wanted (R, 2C), without an intercept: adapters have none."""
    x, y = states.double(), wanted.double()
    gram = x.T @ x / len(x)
    ridge = RIDGE * float(x.var(dim=0, correction=0).mean())
    eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    found: Tensor = torch.linalg.solve(gram + ridge * eye, x.T @ y / len(x)).to(states)
    return found
