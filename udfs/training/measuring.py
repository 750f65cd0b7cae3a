"""The layer that compares caption and image, let to measure how far apart they are.

Inner products tell a match only as long as all points are about as long and none lies where all
others are near. What a model reads of a new image or caption is shrunk to the mean by all that it
does not make out, and then half matches whatever stands beside it; in the negative squared distance
that counts against it. Distance is a sum of squares of what a linear map reads as the *difference*
of caption and image, and a gated MLP squares exactly: as silu(z) z + silu(-z) (-z) = z^2, it takes
two channels whose gates and ups read z and -z (`comparing.py` has the like for products).

`measure` adds this to the adapter of a layer that `compare` has trained: into the direction of the
residual stream in which that told of the match, with the mean and the spread that it had, so that
the layers above read it as they know how to. Half of what is told there is the distance then.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253 - as in objective.py

from udfs.metrics import ITM
from udfs.training import low_rank
from udfs.training.comparing import ASKED, Seen, projections
from udfs.training.student import Student

if TYPE_CHECKING:
    from torch import Tensor

AT = 1 + ASKED.index(ITM)
"""Of the places in `Seen.states` the one where the difference is read."""
SHARE = 0.5
"""Of what is told of the match that which is the distance then."""
STILL = 0.1
"""Weight of the other places, where as little as can be shall be read: not all are asked of it."""
RIDGE = 0.1
"""Of the regression, in units of the states' mean variance."""


@torch.no_grad()
def measure(student: Student, depth: int, batches: Iterable[Seen]) -> str:
    """Write the squared distance into the adapters of one layer's MLP, and return what was done.

    Two thirds of the adapters' rank are given to it (what they hold is cut to the rest): a third
    has that many couples of channels, those that are quietest on these states; all but one have a
    coordinate of the difference each, and that one a constant, for the mean. Raises ValueError for
    an MLP that is not a gated one with adapters of one rank, 6 at least, that have told something.
    """
    mlp = projections(student, depth)
    rank = _rank(mlp)
    couples = rank // 3
    states, captions, images = (torch.cat(part) for part in zip(*batches, strict=True))
    asked = states[:, AT]
    direction, told = _told(mlp, asked)
    difference = (captions - images)[:, : couples - 1]
    usual = difference.square().mean().sqrt().expand(len(difference), 1)
    elsewhere = states[:, [at for at in range(states.shape[1]) if at != AT]].flatten(0, 1)
    reader = _reader(asked, torch.cat([difference, usual], dim=1), elsewhere)
    read = asked @ reader
    distance = read[:, :-1].square().sum(dim=1)
    alike = torch.corrcoef(torch.stack([distance, told]))[0, 1]
    slope = (told.std() / distance.std()).copysign(alike)
    sizes = slope.repeat(reader.shape[1])
    sizes[-1] = (told.mean() - slope * distance.mean()) / read[:, -1].square().mean()
    _make_room(mlp, rank - 2 * couples, direction)
    _give_channels(mlp, _quiet(mlp, asked, 2 * len(sizes)), reader, direction, SHARE * sizes)
    return (
        f"measure: the distance in {len(sizes) - 1} coordinates; its correlation with what was told"
        f" before is {float(alike):.2f}"
    )


def steady(student: Student, depth: int) -> None:
    """Let the adapters of a layer that measures read without dropout from now on: squares of its
    noise would add up to more than distances are."""
    for layer in projections(student, depth):
        layer.lora_dropout["default"] = torch.nn.Identity()


def _rank(mlp: Sequence[Any]) -> int:
    ranks = {len(low_rank.matrices(layer)[0]) for layer in mlp}
    if len(ranks) > 1 or min(ranks) < 6:
        raise ValueError("`measure` needs adapters of one rank, 6 at least, in gate, up and down")
    return ranks.pop()


def _told(mlp: Sequence[Any], states: Tensor) -> tuple[Tensor, Tensor]:
    """The direction (D,) into which the adapters say most, and how much (R,) at states (R, D)."""
    u, s, v = torch.linalg.svd(low_rank.added(mlp[-1]), full_matrices=False)
    if not s[0]:
        raise ValueError("`measure` goes by what the layer told before, and it told nothing yet")
    return u[:, 0], _active(mlp, states) @ v[0] * s[0]


def _active(mlp: Sequence[Any], states: Tensor) -> Tensor:
    """What channels (R, F) say at states (R, D)."""
    gate, up, _ = (low_rank.whole(layer) for layer in mlp)
    return torch.nn.functional.silu(states @ gate.T) * (states @ up.T)


def _reader(read: Tensor, wanted: Tensor, elsewhere: Tensor) -> Tensor:
    """(D, C) of states (R, D) against wanted (R, C), and against nothing elsewhere (S, D); without
    an intercept, as adapters have none."""
    x, y, still = read.double(), wanted.double(), elsewhere.double()
    gram = x.T @ x / len(x) + STILL * still.T @ still / len(still)
    ridge = RIDGE * float(x.var(dim=0, correction=0).mean())
    eye = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    found: Tensor = torch.linalg.solve(gram + ridge * eye, x.T @ y / len(x)).to(read)
    return found


def _make_room(mlp: Sequence[Any], rank: int, direction: Tensor) -> None:
    """Cut what the adapters hold to their first `rank` rows, and the share off what they told."""
    *others, down = mlp
    for layer in others:
        low_rank.add(layer, 0.0, rank)
    told = torch.outer(direction, direction @ low_rank.added(down))
    low_rank.add(down, -SHARE * told, rank)


def _quiet(mlp: Sequence[Any], states: Tensor, count: int) -> Tensor:
    """The channels (count,) that say least: in them least is lost."""
    said = _active(mlp, states).square().mean(dim=0).sqrt()
    said = said * low_rank.whole(mlp[-1]).norm(dim=0)
    return torch.argsort(said)[:count]


def _give_channels(
    mlp: Sequence[Any], channels: Tensor, reader: Tensor, direction: Tensor, sizes: Tensor
) -> None:
    """Let two channels for each column of reader (D, C) read nothing but it and its opposite, and
    put their sum out into `direction` (D,), `sizes` (C,) times, by the adapters' last rows."""
    gate, up, down = mlp
    signed = torch.stack([reader.T, -reader.T], dim=1).flatten(0, 1)  # (2C, D)
    rows = torch.arange(-len(channels), 0, device=channels.device)
    for layer in (gate, up):
        held = low_rank.whole(layer)
        low, high, scaling = low_rank.matrices(layer)
        low[rows] = signed - held[channels]
        high[channels, rows] = 1 / scaling
    held = low_rank.whole(down)
    low, high, scaling = low_rank.matrices(down)
    out = torch.outer(direction, sizes.repeat_interleave(2))
    low[rows, channels] = 1
    high[:, rows] = (out - held[:, channels]) / scaling
