"""RankNet for captions of one image: the better one should get the higher expectation.

Burges et al., "Learning to rank using gradient descent", ICML 2005.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from udfs.scoring.readout import expected_number

if TYPE_CHECKING:
    from torch import Tensor

MARGIN = 5.0  # points; closer scores do not tell the order: a teacher's own noise
SCALE = 10.0  # points of difference that count as a logit of 1


def ranknet(log_p: Tensor, scores: Tensor, groups: Tensor) -> Tensor:
    """Mean logistic loss over all pairs of rows of one group (R,): one image and metric.

    Log probabilities are (R, 101), scores (R,). Without a pair to rank the loss is 0, and has a
    gradient of 0.
    """
    import torch

    expected = expected_number(log_p) / SCALE
    gaps = scores.float()[:, None] - scores.float()[None]
    better, worse = ((groups[:, None] == groups[None]) & (gaps > MARGIN)).nonzero(as_tuple=True)
    if not len(better):
        return 0 * expected.sum()
    ahead = expected[better] - expected[worse]
    return torch.nn.functional.soft_margin_loss(ahead, torch.ones_like(ahead))
