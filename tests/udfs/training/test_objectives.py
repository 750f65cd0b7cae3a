"""The objectives, against numbers worked out by hand or by other libraries."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from udfs.scoring import number_tree
from udfs.scoring.readout import distributions, expected_number, log_probabilities
from udfs.training.expectation_error import expectation_error
from udfs.training.number_cross_entropy import number_cross_entropy, soft_targets
from udfs.training.ranknet import MARGIN, SCALE, ranknet
from udfs.training.reason_likelihood import reason_likelihood


def certain(*numbers: int) -> torch.Tensor:
    """Log probabilities of distributions that are all but sure of a number."""
    p = torch.full((len(numbers), 101), 1e-9)
    p[range(len(numbers)), list(numbers)] = 1.0
    return (p / p.sum(-1, keepdim=True)).log()


@pytest.mark.parametrize("spelling", ["digits", "whole"])
def test_training_reads_numbers_as_scoring_does(spelling: str) -> None:
    encode = (lambda t: [ord(c) for c in t]) if spelling == "digits" else _whole
    _, tree = number_tree.build(encode, "score: ")
    logits = torch.randn(5, len(tree.nodes), 400, generator=torch.Generator().manual_seed(0)) * 3
    found = log_probabilities(logits, tree).exp()
    assert found.sum(-1).numpy() == pytest.approx(np.ones(5), abs=1e-5)
    wanted = distributions(logits[:, None], tree)[:, 0]
    assert found.numpy() == pytest.approx(wanted, abs=1e-5)


def _whole(text: str) -> list[int]:
    """A tokenizer that spells each number of up to three digits with one token."""
    head, _, digits = text.rpartition(" ")
    return [*map(ord, head), 200 + int(digits)]


def test_soft_targets_are_a_normal_distribution_around_the_score() -> None:
    scores, spread = torch.tensor([50.0, 0.0, 99.4]), torch.tensor([4.0, 4.0, 0.0])
    found = soft_targets(scores, spread).numpy()
    bell = norm.pdf(np.arange(101), 50, 4)
    assert found[0] == pytest.approx(bell / bell.sum(), abs=1e-6)
    assert found[1].argmax() == 0
    assert found[1].sum() == pytest.approx(1, abs=1e-6)
    assert found[2].tolist() == [float(number == 99) for number in range(101)]


def test_cross_entropy_is_least_where_the_distribution_is_the_target() -> None:
    scores, spread = torch.tensor([30.0, 80.0]), torch.tensor([4.0, 8.0])
    target = soft_targets(scores, spread)
    log_target = target.clamp(min=1e-30).log()
    least = number_cross_entropy(log_target, scores, spread)
    entropy = -(target * log_target).sum(-1).mean()
    assert float(least) == pytest.approx(float(entropy), rel=1e-5)
    assert number_cross_entropy(certain(30, 60), scores, spread) > least
    hard = number_cross_entropy(certain(30, 80), scores, torch.zeros(2))
    assert float(hard) == pytest.approx(0, abs=1e-6)


def test_expectation_error_is_the_squared_distance_in_units_of_25_points() -> None:
    found = expectation_error(certain(50, 90), torch.tensor([50.0, 40.0]))
    assert float(found) == pytest.approx((0 + 2.0**2) / 2, rel=1e-4)


def test_ranknet_is_the_logistic_loss_over_pairs_of_one_group() -> None:
    log_p = certain(70, 40, 55, 10)
    scores, groups = torch.tensor([90.0, 20.0, 88.0, 95.0]), torch.tensor([0, 0, 0, 1])
    expected = expected_number(log_p)
    pairs = [(0, 1), (2, 1)]  # 0 and 2 are within the margin; 3 stands alone
    assert abs(scores[0] - scores[2]) < MARGIN
    wanted = np.mean(
        [math.log1p(math.exp(-float(expected[i] - expected[j]) / SCALE)) for i, j in pairs]
    )
    assert float(ranknet(log_p, scores, groups)) == pytest.approx(wanted, rel=1e-4)
    better = certain(90, 10, 88, 10)
    assert ranknet(better, scores, groups) < ranknet(log_p, scores, groups)


def test_ranknet_without_a_pair_has_a_gradient_of_nothing() -> None:
    logits = torch.randn(2, 101, requires_grad=True)
    loss = ranknet(logits.log_softmax(-1), torch.tensor([50.0, 52.0]), torch.tensor([0, 0]))
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert float(logits.grad.abs().max()) == 0


def test_reason_likelihood_is_the_mean_over_tokens() -> None:
    logits = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]])
    found = reason_likelihood(logits, torch.tensor([0, 0]))
    assert float(found) == pytest.approx((math.log(2) + math.log(4 / 3)) / 2, rel=1e-5)


def test_every_objective_has_a_gradient_where_the_model_is_sure_of_the_wrong_number() -> None:
    logits = certain(0, 0).requires_grad_()
    scores = torch.tensor([80.0, 10.0])
    for loss in (
        number_cross_entropy(logits.log_softmax(-1), scores, torch.full((2,), 4.0)),
        ranknet(logits.log_softmax(-1), scores, torch.tensor([0, 0])),
    ):
        (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
        assert torch.isfinite(gradient).all()
    (gradient,) = torch.autograd.grad(
        number_cross_entropy(logits.log_softmax(-1), scores, torch.full((2,), 4.0)), logits
    )
    assert gradient.abs().max() > 1e-3
