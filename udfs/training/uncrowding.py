"""Taking off ITM, after the last step, what it owes to crowding, in closed form.

Images that suit nearly all captions, and captions that suit nearly all images, get more ITM than
they deserve (`crowding.py`). A model that imitates a dual encoder without that fault keeps most of
its own: on the images that it trains on it knows by heart whose a caption is, and nothing there
shows the fault. But how crowded it is around an image and a caption is told by each alone, whatever
stands beside it, and the last layer's MLP can read it. So to what its down-projection gives, one
direction is added, that of ITM's log odds where ITM is read, times what ridge regression reads of
crowding in what goes in. Where other scores, or more digits, are read, nothing shall be added.

How much: as if log odds were the dual encoder's match, but for their spread. Both are noisy, as is
what is read of crowding, so spreads are set equal; slopes of regression would take off too little.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch  # noqa: TID253 - as in objective.py

from udfs.metrics import ITM, METRICS
from udfs.training import low_rank
from udfs.training.inputs import Inputs
from udfs.training.numbers import begun_odds
from udfs.training.plans import Planner, Shown
from udfs.training.recipe import Stage

if TYPE_CHECKING:
    from torch import Tensor

PAIRS = 4096
"""So many captions behind images tell how crowding is read."""
IMAGES = 8  # a batch
STILL = 0.1
"""Weight of a place where nothing shall change: there are some forty for each that shall."""
MOST = 2.0
"""So many times what is read is taken at most: beyond, crowding can hardly be read."""
RIDGE = 0.03
"""Of the regression, in units of the mean square of what the down-projection reads."""


@dataclass
class Seen:
    """R captions behind images, by index, and whether they match: what the last down-projection
    reads (R, F) and the last layer gives (R, D) where ITM begins."""

    images: list[int]
    texts: list[int]
    match: list[bool]
    read: Tensor
    residual: Tensor


def uncrowd(inputs: Inputs, planner: Planner, stage: Stage) -> str:
    """Change the last layer's down-projection (its adapter, where it has one) by what images and
    captions tell as `stage`, which imitates, sets them beside one another; return what was done.

    Raises ValueError for a model whose last layer has no `mlp.down_proj`.
    """
    student, encoder = inputs.student, inputs.dual_encoder
    assert encoder is not None
    learning = student.model.training
    student.model.eval()  # no dropout
    batches, still = list[Seen](), torch.zeros((), dtype=torch.float64, device=student.model.device)
    for turn, shown in enumerate(_shown(planner, stage)):
        seen, beside = look(inputs, shown, stage, turn)
        batches.append(seen)
        still = still + _square(beside)
    student.model.train(learning)
    images, texts = ([i for b in batches for i in getattr(b, side)] for side in ("images", "texts"))
    read, residual = (
        torch.cat([getattr(b, name) for b in batches]) for name in ("read", "residual")
    )
    crowd = torch.from_numpy(encoder.crowd(images, texts)).to(read)
    match = torch.from_numpy(encoder(images, texts)).to(read) + crowd
    odds, direction = _odds(inputs, residual)
    others = torch.tensor([not each for b in batches for each in b.match], device=read.device)
    wanted = (crowd.mean() - crowd) * odds[others].std() / match[others].std()
    reader = _reader(read, wanted, still)
    told = read @ reader
    size = min(MOST, float(wanted.std() / told.std().clamp_min(1e-9)))
    _add(student.core.language_model.layers[-1].mlp.down_proj, direction, size * reader)
    known = float(torch.corrcoef(torch.stack([told, wanted]))[0, 1])
    share = size * float(told.std() / odds.std())
    return (
        f"uncrowd: {share:.2f} of the spread of ITM's log odds taken off; crowding of {len(texts)}"
        f" captions behind images is read with a correlation of {known:.2f}"
    )


def look(inputs: Inputs, shown: Sequence[Shown], stage: Stage, turn: int) -> tuple[Seen, Tensor]:
    """Lay out images with captions, ask all questions, and see what is read there, and what (S, F)
    where other numbers, and more digits, are told."""
    student, numbers = inputs.student, inputs.student.template.tree
    trees, images, texts, match = list[Any](), list[int](), list[int](), list[bool]()
    begins, still = list[tuple[int, int]](), list[tuple[int, int]]()
    for row, (image, captions) in enumerate(shown):
        tree, last = student.with_image()
        trees.append(tree)
        for text in captions:
            tip = inputs.tell(tree, last, text, stage)
            for metric in range(len(METRICS)):
                first, *rest = tree.ask(tip, student.template.questions[metric], numbers)
                (begins if metric == ITM else still).append((row, first))
                still.extend((row, column) for column in rest)
            images.append(image)
            texts.append(inputs.text_rows[text])
            match.append(text in inputs.examples.captions[image])
    with torch.no_grad(), student.autocast():
        pictures = inputs.images([image for image, _ in shown], stage, turn)
        read, residual = student.last_layer(trees, pictures)
    at, beside = (tuple(zip(*places, strict=True)) for places in (begins, still))
    return Seen(images, texts, match, read[at].float(), residual[at].float()), read[beside]


def _shown(planner: Planner, stage: Stage) -> Iterator[Sequence[Shown]]:
    """Images with captions, in batches, until there are PAIRS or each image had its turn."""
    asked, count = stage.model_copy(update={"imitated": IMAGES}), 0
    for turn in range(-(-len(planner.captioned) // IMAGES)):
        shown = planner.plan(asked, turn).imitated
        yield shown
        count += sum(len(captions) for _, captions in shown)
        if count >= PAIRS:
            return


def _odds(inputs: Inputs, residual: Tensor) -> tuple[Tensor, Tensor]:
    """Log odds (R,) of ITM by its first token, and the direction (D,) in the residual stream that
    adds 1 to them, in the mean."""
    student = inputs.student
    at = residual.detach().requires_grad_()
    hidden = student.core.language_model.norm(at)
    odds = begun_odds(hidden, student.lm_head.weight, student.template.tree)
    (gradient,) = torch.autograd.grad(odds.sum(), at)
    mean = gradient.mean(dim=0)
    return odds.detach(), mean / mean.square().sum()


def _reader(read: Tensor, wanted: Tensor, still: Tensor) -> Tensor:
    """(F,) of what is read (R, F) against wanted (R,), and against nothing where the sum of squares
    is `still` (F, F)."""
    gram = _square(read) + STILL * still
    ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(gram)).to(gram)
    found: Tensor = torch.linalg.solve(gram + ridge, read.double().T @ wanted.double())
    return found.to(read)


def _square(rows: Tensor) -> Tensor:
    return rows.double().T @ rows.double()


@torch.no_grad()
def _add(down: Any, direction: Tensor, reader: Tensor) -> None:
    """Add direction (D,) times reader (F,) to the weight (D, F) of a linear layer. An adapter keeps
    its rank and, of all that it holds then, the most that this can hold."""
    more = torch.outer(direction, reader)
    if not hasattr(down, "lora_A"):
        down.weight += more.to(down.weight)
        return
    low_rank.add(down, more)
