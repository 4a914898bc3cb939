"""Means and ratios of means, from moments; ratios by the delta method, clustered by user.

Shapes: ``N`` users, ``K`` columns of the moments.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ranker.experiment.effect import ArmEstimate, Effect, FloatArray, compare_arms
from ranker.experiment.moments import Moments, moments

# Below this share of its terms, what is left of a variance is rounding.
_ROUNDING = 1e-13


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """What is measured of a set of users: the mean of a column, or a ratio of two means.

    Attributes:
        numerator: a column of the moments.
        denominator: another, or None: 1 for every user, which makes it the mean.
    """

    numerator: str
    denominator: str | None = None

    @property
    def method(self) -> str:
        """How it is estimated: "mean" or "ratio"."""
        return "mean" if self.denominator is None else "ratio"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Linearised:
    """A quantity as a linear function of the columns, to first order.

    Attributes:
        value: of the quantity; NaN where there is nothing to divide by.
        weights: its derivatives by the columns' means, [K].
    """

    value: float
    weights: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RatioSample:
    """A ratio metric's sums by user: clicks and impressions, say.

    Attributes:
        numerator, denominator: NaN where not observed, [N].
    """

    numerator: FloatArray
    denominator: FloatArray

    def __post_init__(self) -> None:
        if len(self.numerator) != len(self.denominator):
            raise ValueError(
                f"ratio: expected as many numerators as denominators, got {len(self.numerator)} "
                f"and {len(self.denominator)}"
            )


def ratio_effect(control: RatioSample, treatment: RatioSample, *, confidence: float) -> Effect:
    """Compare sum of numerators / sum of denominators, users being independent, rows not.

    Users with either part missing are left out. No interval (a reason instead) with fewer than two
    users or a zero denominator; see `ranker.experiment.effect.compare_arms`.

    Raises:
        ValueError: an infinite entry, or ``confidence`` outside (0, 1).
    """
    return effect_from_moments(
        _moments_of(control),
        _moments_of(treatment),
        quantity=Quantity(numerator="numerator", denominator="denominator"),
        confidence=confidence,
    )


def effect_from_moments(
    control: Moments, treatment: Moments, *, quantity: Quantity, confidence: float
) -> Effect:
    """Compare ``quantity`` between two arms' users."""
    return compare_arms(
        estimate(control, quantity),
        estimate(treatment, quantity),
        method=quantity.method,
        confidence=confidence,
    )


def estimate(users: Moments, quantity: Quantity) -> ArmEstimate:
    """``quantity`` of one arm with its squared standard error wᵀΣw / N, w from `linearise`."""
    linear = linearise(users, quantity)
    return ArmEstimate(
        value=linear.value,
        squared_se=variance_of(users, linear.weights) / max(users.num_users, 1),
        num_users=users.num_users,
    )


def linearise(users: Moments, quantity: Quantity) -> Linearised:
    """Expand ``quantity`` around the columns' means.

    A ratio R = mean(Y)/mean(X) moves as mean(Y − R·X)/mean(X) (Deng, Knoblich & Lu, KDD 2018,
    §3.2); a mean is itself.
    """
    weights = np.zeros(len(users.columns))
    numerator = users.index(quantity.numerator)
    if quantity.denominator is None:
        weights[numerator] = 1.0
        return Linearised(value=float(users.means[numerator]), weights=weights)
    denominator = users.index(quantity.denominator)
    divisor = float(users.means[denominator])
    if users.num_users == 0 or divisor == 0:
        return Linearised(value=float("nan"), weights=np.full_like(weights, np.nan))
    value = float(users.means[numerator]) / divisor
    weights[numerator] += 1 / divisor
    weights[denominator] -= value / divisor
    return Linearised(value=value, weights=weights)


def variance_of(users: Moments, weights: FloatArray) -> float:
    """Variance over users of the columns' sum weighted by ``weights`` [K], 0 if just rounding."""
    covariances = users.covariances
    variance = float(weights @ covariances @ weights)
    terms = float(np.abs(weights) @ np.abs(covariances) @ np.abs(weights))
    return 0.0 if variance < _ROUNDING * terms else variance


def _moments_of(sample: RatioSample) -> Moments:
    observed = ~(np.isnan(sample.numerator) | np.isnan(sample.denominator))
    return moments(
        {
            "numerator": sample.numerator[observed],
            "denominator": sample.denominator[observed],
        }
    )
