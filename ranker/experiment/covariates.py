"""CUPED: what users did before the experiment takes the differences between them out of a metric.

Shapes: ``N`` users, ``K`` columns of the moments, ``Q`` covariates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ranker.experiment.effect import ArmEstimate, Effect, FloatArray, compare_arms
from ranker.experiment.moments import Moments, moments
from ranker.experiment.ratios import (
    Quantity,
    effect_from_moments,
    estimate,
    linearise,
    variance_of,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CovariateSample:
    """An arm's users.

    Attributes:
        outcome: in the experiment; NaN = not observed, [N].
        covariate: before it, usually the same metric; NaN where a user has no such past, [N].
    """

    outcome: FloatArray
    covariate: FloatArray

    def __post_init__(self) -> None:
        _require_one_length({"outcome": self.outcome, "covariate": self.covariate})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RatioCovariateSample:
    """An arm's users, with a ratio metric's two sums in the experiment and before it.

    Attributes:
        numerator, denominator: NaN = not observed, [N].
        covariate_numerator, covariate_denominator: NaN where a user has no such past, [N].
    """

    numerator: FloatArray
    denominator: FloatArray
    covariate_numerator: FloatArray
    covariate_denominator: FloatArray

    def __post_init__(self) -> None:
        _require_one_length(
            {
                "numerator": self.numerator,
                "denominator": self.denominator,
                "covariate_numerator": self.covariate_numerator,
                "covariate_denominator": self.covariate_denominator,
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FilledCovariate:
    """A covariate without gaps.

    Attributes:
        values: gaps filled with the mean of the others (0 where there are none), [N].
        missing: 1 where there was a gap, [N]; a second covariate, since users without a past
            behave differently from the average user.
    """

    values: FloatArray
    missing: FloatArray


def fill_missing(covariate: FloatArray) -> FilledCovariate:
    """Fill the gaps (NaN) of a covariate, [N] users of *both* arms, so that both get one filling.

    So filled, values and gaps are uncorrelated, and each gets its own coefficient.
    """
    gap = np.isnan(covariate)
    mean = float(covariate[~gap].mean()) if not gap.all() else 0.0
    return FilledCovariate(values=np.where(gap, mean, covariate), missing=gap.astype(np.float64))


def cuped_effect(
    control: CovariateSample, treatment: CovariateSample, *, confidence: float
) -> Effect:
    """Compare means, adjusted by a covariate; users without an outcome are left out.

    Users without a covariate are kept, as `fill_missing` says. Without any usable covariate the
    effect is that of `ranker.experiment.means.mean_effect` with a reason.

    Raises:
        ValueError: an infinite entry, or ``confidence`` outside (0, 1).
    """
    arms = [
        (arm.outcome[observed], arm.covariate[observed])
        for arm in (control, treatment)
        for observed in [~np.isnan(arm.outcome)]
    ]
    filled = fill_missing(np.concatenate([covariate for _, covariate in arms]))
    num_control = len(arms[0][0])
    control_moments, treatment_moments = (
        moments({"outcome": outcome, "past": filled.values[part], "no past": filled.missing[part]})
        for (outcome, _), part in zip(
            arms, (slice(None, num_control), slice(num_control, None)), strict=True
        )
    )
    return cuped_effect_from_moments(
        control_moments,
        treatment_moments,
        quantity=Quantity(numerator="outcome"),
        covariates=(Quantity(numerator="past"), Quantity(numerator="no past")),
        confidence=confidence,
    )


def cuped_ratio_effect(
    control: RatioCovariateSample, treatment: RatioCovariateSample, *, confidence: float
) -> Effect:
    """Compare ratios, adjusted by the same ratio before the experiment; gaps as `cuped_effect`.

    Raises:
        ValueError: an infinite entry, or ``confidence`` outside (0, 1).
    """
    columns, in_treatment = _ratio_columns(control, treatment)
    control_moments, treatment_moments = (
        moments({name: values[part] for name, values in columns.items()})
        for part in (~in_treatment, in_treatment)
    )
    return cuped_effect_from_moments(
        control_moments,
        treatment_moments,
        quantity=Quantity(numerator="numerator", denominator="denominator"),
        covariates=(
            Quantity(numerator="past numerator", denominator="past denominator"),
            Quantity(numerator="no past"),
        ),
        confidence=confidence,
    )


def cuped_effect_from_moments(
    control: Moments,
    treatment: Moments,
    *,
    quantity: Quantity,
    covariates: Sequence[Quantity],
    confidence: float,
) -> Effect:
    """Compare ``quantity``, adjusted by ``covariates``, between two arms' users.

    An arm's value Y becomes Y − θᵀ(X − X̄), X its covariates' values, X̄ those of both arms together
    and θ = Σ_XX⁻¹ Σ_XY of both arms together (Deng, Xu, Kohavi & Walker, WSDM 2013, §3); a ratio
    stands in Σ by what it is to first order (`ranker.experiment.ratios.linearise`), in each arm's
    own expansion for that arm's variance. The variance falls by 1 − ρ². X̄ and θ are taken as
    fixed: their noise enters the difference to second order only. A covariate that doesn't vary, or
    that an arm has none of, is dropped; with none left the effect is the unadjusted one, with a
    reason.

    Raises:
        ValueError: an unknown column, different columns, or ``confidence`` outside (0, 1).
    """
    pooled = control + treatment
    usable = [
        one
        for one in _that_vary(pooled, covariates)
        if all(np.isfinite(linearise(arm, one).value) for arm in (control, treatment))
    ]
    plain = effect_from_moments(control, treatment, quantity=quantity, confidence=confidence)
    if not usable or not np.isfinite(plain.difference_se):
        reason = plain.reason or "not adjusted: no covariate that varies between users"
        return replace(plain, reason=reason)
    coefficients = _coefficients(pooled, quantity=quantity, covariates=usable)
    control_arm, treatment_arm = (
        _adjusted(
            arm, pooled=pooled, quantity=quantity, covariates=usable, coefficients=coefficients
        )
        for arm in (control, treatment)
    )
    return compare_arms(
        control_arm, treatment_arm, method=f"{quantity.method}, CUPED", confidence=confidence
    )


def residual_share(users: Moments, *, quantity: Quantity, covariates: Sequence[Quantity]) -> float:
    """Share of the variance of ``quantity`` that ``covariates`` leave: 1 − ρ²; 1 without any."""
    usable = _that_vary(users, covariates)
    weights = linearise(users, quantity).weights
    variance = variance_of(users, weights)
    if not usable or variance == 0:
        return 1.0
    coefficients = _coefficients(users, quantity=quantity, covariates=usable)
    explained = coefficients @ np.stack([linearise(users, one).weights for one in usable])
    return variance_of(users, weights - explained) / variance


def _adjusted(
    arm: Moments,
    *,
    pooled: Moments,
    quantity: Quantity,
    covariates: Sequence[Quantity],
    coefficients: FloatArray,
) -> ArmEstimate:
    linear = linearise(arm, quantity)
    value, weights = linear.value, linear.weights
    for covariate, coefficient in zip(covariates, coefficients.tolist(), strict=True):
        past = linearise(arm, covariate)
        value -= coefficient * (past.value - linearise(pooled, covariate).value)
        weights = weights - coefficient * past.weights
    return ArmEstimate(
        value=value,
        squared_se=variance_of(arm, weights) / arm.num_users,
        num_users=arm.num_users,
    )


def _coefficients(
    pooled: Moments, *, quantity: Quantity, covariates: Sequence[Quantity]
) -> FloatArray:
    """θ, [Q]; covariates that repeat each other share it."""
    covariances = pooled.covariances
    past = np.stack([linearise(pooled, covariate).weights for covariate in covariates])  # [Q, K]
    with_outcome = past @ covariances @ linearise(pooled, quantity).weights  # [Q]
    among = past @ covariances @ past.T  # [Q, Q]
    scales = np.sqrt(np.diag(among))  # units differ by orders of magnitude: correlate first
    inverse = np.linalg.pinv(among / np.outer(scales, scales), rcond=1e-10, hermitian=True)
    coefficients: FloatArray = inverse @ (with_outcome / scales) / scales
    return coefficients


def _that_vary(users: Moments, covariates: Sequence[Quantity]) -> list[Quantity]:
    return [one for one in covariates if estimate(users, one).squared_se > 0]


def _ratio_columns(
    control: RatioCovariateSample, treatment: RatioCovariateSample
) -> tuple[dict[str, FloatArray], NDArray[np.bool_]]:
    numerator, denominator, past_numerator, past_denominator = (
        np.concatenate([getattr(control, name), getattr(treatment, name)])
        for name in ("numerator", "denominator", "covariate_numerator", "covariate_denominator")
    )
    observed = ~(np.isnan(numerator) | np.isnan(denominator))
    gap = np.isnan(past_numerator) | np.isnan(past_denominator)  # a half of a ratio is none
    past = [
        fill_missing(np.where(gap, np.nan, values)[observed])
        for values in (past_numerator, past_denominator)
    ]
    columns = {
        "numerator": numerator[observed],
        "denominator": denominator[observed],
        "past numerator": past[0].values,
        "past denominator": past[1].values,
        "no past": past[0].missing,
    }
    return columns, (np.arange(len(numerator)) >= len(control.numerator))[observed]


def _require_one_length(columns: Mapping[str, FloatArray]) -> None:
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"covariates: expected columns of one length, got {lengths}")
