from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss
from torch import Tensor, nn

from ranker.models.heads import (
    BinaryHead,
    Head,
    SquaredHead,
    SquaredLog1pHead,
)


def heads() -> list[Head]:
    return [
        BinaryHead(base_rate=0.3),
        SquaredHead(mean=3.5, scale=1.2),
        SquaredLog1pHead(mean=2.0, scale=0.8),
    ]


every_head = pytest.mark.parametrize("head", heads(), ids=lambda head: type(head).__name__)


@every_head
def test_null_labels_cost_nothing_and_move_nothing(head: Head) -> None:
    logit = torch.tensor([0.3, -2.0, 5.0, 80.0], requires_grad=True)
    label = torch.tensor([1.0, torch.nan, 0.0, torch.nan])
    losses = head.loss(logit, label)
    assert losses.isfinite().all()
    assert losses[[1, 3]].tolist() == [0, 0]
    losses.sum().backward()
    assert logit.grad is not None
    assert logit.grad[[1, 3]].tolist() == [0, 0]
    assert (logit.grad[[0, 2]] != 0).all()


@every_head
def test_all_labels_null(head: Head) -> None:
    logit = torch.randn(7, requires_grad=True)
    label = torch.full((7,), torch.nan)
    head.observe(logit, label)
    head.loss(logit, label).sum().backward()
    assert logit.grad is not None
    assert (logit.grad == 0).all()
    assert head.prediction(logit).isfinite().all()


@every_head
@given(logits=st.lists(st.floats(-1e4, 1e4, width=32), max_size=5))
def test_predictions_are_finite_and_ordered_like_logits(head: Head, logits: list[float]) -> None:
    predictions = head.prediction(torch.tensor(sorted(logits)))
    assert predictions.isfinite().all()
    assert (predictions.diff() >= 0).all()


def test_log_loss_is_that_of_scikit_learn() -> None:
    head = BinaryHead(base_rate=0.1)
    logit, label = torch.randn(7), torch.tensor([1.0, 0, 0, 1, 1, 0, 1])
    expected = log_loss(label.numpy(), head.prediction(logit).double().numpy())
    assert head.loss(logit, label).mean().item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("base_rate", "logit"), [(0.5, 0.0), (0.2, math.log(0.25)), (0.0, -6.9068), (1.0, 6.9068)]
)
def test_binary_heads_start_at_the_base_rate(base_rate: float, logit: float) -> None:
    assert BinaryHead(base_rate=base_rate).initial_logit == pytest.approx(logit, abs=1e-4)


def test_squared_head_by_hand() -> None:
    head = SquaredHead(mean=3.0, scale=2.0)
    assert head.prediction(torch.tensor([0.5])).item() == 4.0
    assert head.loss(torch.tensor([0.5]), torch.tensor([7.0])).item() == 1.5**2


def test_squared_log1p_head_by_hand() -> None:
    head = SquaredLog1pHead(mean=2.0, scale=0.5)
    logit, label = torch.tensor([1.0]), torch.tensor([math.e**3 - 1])  # log1p 3: two scales up
    assert head.loss(logit, label).item() == pytest.approx(1.0, rel=1e-5)
    # nothing observed yet: no correction
    assert head.prediction(logit).item() == pytest.approx(math.e**2.5 - 1, rel=1e-6)


def log_normal_batches(num_batches: int) -> list[tuple[Tensor, Tensor]]:
    """Logits that are the true conditional means of a log-normal label, standardised."""
    random = np.random.default_rng(0)
    batches = []
    for _ in range(num_batches):
        logit = random.normal(size=500)
        log_label = 2 + 0.5 * logit + random.normal(scale=0.9, size=500)
        label = np.maximum(np.exp(log_label) - 1, 0)
        batches.append((torch.tensor(logit).float(), torch.tensor(label).float()))
    return batches


def test_smearing_makes_the_mean_prediction_the_mean_label() -> None:
    head = SquaredLog1pHead(mean=2.0, scale=0.5, decay=1.0)
    batches = log_normal_batches(20)
    for logit, label in batches:
        head.observe(logit, label)
    predictions = torch.cat([head.prediction(logit) for logit, _ in batches]).double()
    labels = torch.cat([label for _, label in batches]).double()
    assert predictions.mean().item() == pytest.approx(labels.mean().item(), rel=1e-4)
    # log-normal theory: E exp(residual) = exp(sd^2 / 2)
    assert head.smearing.item() == pytest.approx(math.exp(0.9**2 / 2), rel=0.03)


def test_smearing_leaves_null_labels_out() -> None:
    head, gappy = (SquaredLog1pHead(mean=2.0, scale=0.5) for _ in range(2))
    (logit, label), *_ = log_normal_batches(1)
    head.observe(logit[:200], label[:200])
    label[200:] = torch.nan
    gappy.observe(logit, label)
    assert gappy.smearing.item() == pytest.approx(head.smearing.item(), rel=1e-6)


def test_smearing_forgets_at_its_decay() -> None:
    head = SquaredLog1pHead(mean=0.0, scale=1.0, decay=0.5)
    zero = torch.zeros(1)  # fitted: exp(0) = 1
    head.observe(zero, torch.tensor([2.0]))  # 1 + y = 3
    head.observe(zero, torch.tensor([4.0]))  # 1 + y = 5
    assert head.smearing.item() == pytest.approx((0.5 * 3 + 5) / (0.5 * 1 + 1))


def test_observing_takes_no_gradient_and_is_saved() -> None:
    head = SquaredLog1pHead(mean=1.0, scale=1.0)
    head.observe(torch.ones(3, requires_grad=True), torch.tensor([1.0, 2.0, 3.0]))
    assert not head.sum_fitted.requires_grad
    other = SquaredLog1pHead(mean=0.0, scale=2.0)
    other.load_state_dict(head.state_dict())
    logit = torch.randn(5)
    assert torch.equal(other.prediction(logit), head.prediction(logit))
    assert isinstance(head, nn.Module)


@pytest.mark.parametrize(("mean", "scale"), [(0.0, 0.0), (math.nan, 1.0), (0.0, math.inf)])
def test_impossible_scales_are_refused(mean: float, scale: float) -> None:
    for head in (SquaredHead, SquaredLog1pHead):
        with pytest.raises(ValueError, match="finite mean and scale > 0"):
            head(mean=mean, scale=scale)


def test_impossible_rates_and_decays_are_refused() -> None:
    with pytest.raises(ValueError, match="base rate must be in"):
        BinaryHead(base_rate=math.nan)
    with pytest.raises(ValueError, match="decay must be in"):
        SquaredLog1pHead(mean=0.0, scale=1.0, decay=0.0)
