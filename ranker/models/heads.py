"""From a logit to a loss and to a prediction in the label's unit, one head a task.

Every head has the same three methods (`Head`). A null label (NaN) is not observed: its loss is 0
and so is its gradient.

Shapes: ``B`` batch.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

# A base rate from few labels is not certain: the first logit stays within ±6.9
_RATE_BOUND = 1e-3
# exp(mean + 5 standard deviations) is beyond any plausible expectation, and exp stays finite
_MAX_DEVIATIONS = 5.0


class Head(Protocol):
    """What a task does with its logits."""

    @property
    def initial_logit(self) -> float:
        """Where the logit should start."""
        ...

    def loss(self, logit: Tensor, label: Tensor) -> Tensor:
        """Loss of each row, [B]; exactly 0 where the label is NaN."""
        ...

    def prediction(self, logit: Tensor) -> Tensor:
        """Probability or expected value, [B], in the label's unit."""
        ...

    def observe(self, logit: Tensor, label: Tensor) -> None:
        """Take note of a training batch, before the weights learn from it."""
        ...


class BinaryHead(nn.Module):
    """Probability of a binary label: sigmoid and log loss."""

    def __init__(self, *, base_rate: float) -> None:
        super().__init__()
        _require(0 <= base_rate <= 1, f"a binary base rate must be in [0, 1], got {base_rate}")
        self.base_rate = base_rate

    @property
    def initial_logit(self) -> float:
        """The base rate's logit."""
        rate = min(max(self.base_rate, _RATE_BOUND), 1 - _RATE_BOUND)
        return math.log(rate / (1 - rate))

    def loss(self, logit: Tensor, label: Tensor) -> Tensor:
        """Log loss in nats."""
        observed = ~label.isnan()
        # NaN is replaced before the loss: 0 * NaN would be NaN in the backward pass
        known = torch.where(observed, label, 0.0)
        losses = functional.binary_cross_entropy_with_logits(logit, known, reduction="none")
        return torch.where(observed, losses, 0.0)

    def prediction(self, logit: Tensor) -> Tensor:
        """Probability."""
        return torch.sigmoid(logit)

    def observe(self, logit: Tensor, label: Tensor) -> None:
        """Nothing to note."""


class SquaredHead(nn.Module):
    """Expected value of a label: the logit is the standardised prediction."""

    mean: Tensor
    scale: Tensor

    def __init__(self, *, mean: float, scale: float) -> None:
        super().__init__()
        _require_scale(mean, scale)
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("scale", torch.tensor(scale))

    @property
    def initial_logit(self) -> float:
        """0: the labels' mean."""
        return 0.0

    def loss(self, logit: Tensor, label: Tensor) -> Tensor:
        """Squared error in standard deviations."""
        return _squared_error(logit, (label - self.mean) / self.scale)

    def prediction(self, logit: Tensor) -> Tensor:
        """Expected value."""
        return self.mean + self.scale * logit

    def observe(self, logit: Tensor, label: Tensor) -> None:
        """Nothing to note."""


class SquaredLog1pHead(nn.Module):
    """Expected value of a label >= 0 with a heavy tail, learnt as the mean of log1p(label).

    exp of a mean logarithm is not a mean. Duan's smearing (JASA 1983) corrects for it, here as a
    ratio: prediction = c exp(m + s logit) - 1 with c = sum(1 + y) / sum exp(m + s logit), so that
    over the observed rows predictions have the labels' mean. The sums run over the training
    batches, each judged before it is learnt from; older ones fade with ``decay`` a batch.
    """

    mean: Tensor
    scale: Tensor
    sum_label: Tensor
    sum_fitted: Tensor

    def __init__(self, *, mean: float, scale: float, decay: float = 0.999) -> None:
        super().__init__()
        _require_scale(mean, scale)
        _require(0 < decay <= 1, f"smearing: decay must be in (0, 1], got {decay}")
        self.decay = decay
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("scale", torch.tensor(scale))
        # float64: millions of summands
        self.register_buffer("sum_label", torch.zeros((), dtype=torch.float64))
        self.register_buffer("sum_fitted", torch.zeros((), dtype=torch.float64))

    @property
    def initial_logit(self) -> float:
        """0: the mean of log1p(label)."""
        return 0.0

    @property
    def smearing(self) -> Tensor:
        """c, a scalar; 1 until a label has been observed."""
        ratio = self.sum_label / self.sum_fitted
        return torch.where(self.sum_fitted > 0, ratio, 1.0).to(self.mean.dtype)

    def loss(self, logit: Tensor, label: Tensor) -> Tensor:
        """Squared error of log1p(label) in standard deviations."""
        return _squared_error(logit, (torch.log1p(label) - self.mean) / self.scale)

    def prediction(self, logit: Tensor) -> Tensor:
        """Expected value, >= 0."""
        return (self.smearing * self._fitted(logit) - 1).clamp(min=0)

    @torch.no_grad()
    def observe(self, logit: Tensor, label: Tensor) -> None:
        """Add a batch to the sums of the smearing ratio."""
        observed = ~label.isnan()
        fitted = torch.where(observed, self._fitted(logit), 0.0).sum(dtype=torch.float64)
        total = torch.where(observed, 1 + label, 0.0).sum(dtype=torch.float64)
        self.sum_label.mul_(self.decay).add_(total)
        self.sum_fitted.mul_(self.decay).add_(fitted)

    def _fitted(self, logit: Tensor) -> Tensor:
        """exp(m + s logit), within what log1p of a label can be."""
        exponent = (self.mean + self.scale * logit).clamp(min=0)
        return torch.minimum(exponent, self.mean + _MAX_DEVIATIONS * self.scale).exp()


def _squared_error(logit: Tensor, standardised: Tensor) -> Tensor:
    observed = ~standardised.isnan()
    errors = logit - torch.where(observed, standardised, 0.0)
    return torch.where(observed, errors.square(), 0.0)


def _require_scale(mean: float, scale: float) -> None:
    valid = math.isfinite(mean) and math.isfinite(scale) and scale > 0
    _require(
        valid,
        f"regression labels: expected a finite mean and scale > 0, got mean {mean}, scale {scale}; "
        "ranker.data.encode.fit_scale gives usable ones for any labels",
    )


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
