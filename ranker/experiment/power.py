"""Power: what an experiment of some size can see, and the size it takes, before it starts.

All of it is for the two-sided Welch test of difference = 0 (`ranker.experiment.effect`) at true
means μ and μ·(1 + lift), both arms with the same variance σ²(1 − ρ²) by user. The lift only sets
the size of the difference; the noise of the control mean is in the test once, as one of its two
arms. (The interval of the *lift* has the control's term scaled by (1 + lift)², which for lifts of
a few per cent changes nothing here.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.optimize import brentq
from scipy.special import stdtrit
from scipy.stats import nct, norm

from ranker.experiment.covariates import residual_share
from ranker.experiment.effect import require_share
from ranker.experiment.moments import Moments
from ranker.experiment.ratios import Quantity, linearise, variance_of

# Beyond, Student's t is normal to better than 1e-6 and its noncentral form slow.
_NORMAL_FROM_DF = 100_000
_SURE = 40.0  # standard errors beyond the critical value


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A metric before the experiment, by user.

    Attributes:
        mean: above 0, in the metric's unit (a ratio's value).
        variance: between users (a ratio's linearised one, `ranker.experiment.ratios`), above 0.
        correlation: between users' metric and their covariates, in [0, 1); 0 without CUPED.
    """

    mean: float
    variance: float
    correlation: float = 0.0

    def __post_init__(self) -> None:
        if not (0 < self.mean < math.inf and 0 < self.variance < math.inf):
            raise ValueError(
                f"power: expected a mean and a variance above 0, got {self.mean} and "
                f"{self.variance}; a relative lift has no meaning otherwise"
            )
        if not 0 <= self.correlation < 1:
            raise ValueError(f"power: correlation must be in [0, 1), got {self.correlation}")

    @classmethod
    def of_moments(
        cls, users: Moments, *, quantity: Quantity, covariates: Sequence[Quantity] = ()
    ) -> Baseline:
        """Baseline of ``quantity`` as ``users`` had it; ``covariates`` from before that.

        Raises:
            ValueError: a mean or variance not above 0, or not finite.
        """
        linear = linearise(users, quantity)
        share = residual_share(users, quantity=quantity, covariates=covariates)
        return cls(
            mean=linear.value,
            variance=variance_of(users, linear.weights),
            correlation=math.sqrt(max(0.0, 1 - share)),
        )

    @property
    def residual_variance(self) -> float:
        """What the covariates leave, σ²(1 − ρ²)."""
        return self.variance * (1 - self.correlation**2)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsersNeeded:
    """Users by arm, rounded up."""

    control: int
    treatment: int


def power_of_lift(
    baseline: Baseline,
    *,
    lift: float,
    num_users_control: float,
    num_users_treatment: float,
    confidence: float,
) -> float:
    """Chance that the two-sided test finds a difference when ``lift`` (relative) is the truth.

    P(|t′| > t_crit), t′ noncentral Student with difference / standard error as its noncentrality
    and Welch–Satterthwaite degrees of freedom; normal above 100,000 of them. The chance includes a
    finding in the wrong direction, which is α/2 at lift 0.

    Raises:
        ValueError: fewer than two users in an arm, or ``confidence`` outside (0, 1).
    """
    require_share(confidence, name="confidence")
    _require_users(num_users_control, num_users_treatment)
    variance = baseline.residual_variance
    control_term, treatment_term = variance / num_users_control, variance / num_users_treatment
    se = math.sqrt(control_term + treatment_term)
    noncentrality = abs(lift) * baseline.mean / se
    degrees_of_freedom = 1 / (
        (control_term / se**2) ** 2 / (num_users_control - 1)
        + (treatment_term / se**2) ** 2 / (num_users_treatment - 1)
    )
    critical = _critical(degrees_of_freedom, confidence=confidence)
    if noncentrality > critical + _SURE:
        return 1.0  # scipy's noncentral t is NaN far out
    if degrees_of_freedom > _NORMAL_FROM_DF:
        return float(norm.sf(critical - noncentrality) + norm.cdf(-critical - noncentrality))
    right = nct.sf(critical, degrees_of_freedom, noncentrality)
    # Of the wrong sign with chance < 1e-12; scipy's far tail is NaN there.
    wrong = 0.0 if noncentrality > 7 else nct.cdf(-critical, degrees_of_freedom, noncentrality)
    return float(right + wrong)


def detectable_lift(
    baseline: Baseline,
    *,
    power: float,
    num_users_control: int,
    num_users_treatment: int,
    confidence: float,
) -> float:
    """The smallest positive lift found with chance ``power``: the minimal detectable effect.

    Raises:
        ValueError: ``power`` not between 1 − ``confidence`` and 1, fewer than two users in an arm.
    """
    _require_power(power, confidence=confidence)
    _require_users(num_users_control, num_users_treatment)

    def missing_power(lift: float) -> float:
        return power - power_of_lift(
            baseline,
            lift=lift,
            num_users_control=num_users_control,
            num_users_treatment=num_users_treatment,
            confidence=confidence,
        )

    se = math.sqrt(baseline.residual_variance * (1 / num_users_control + 1 / num_users_treatment))
    upper = se / baseline.mean
    while missing_power(upper) > 0:
        upper *= 2
    return float(brentq(missing_power, 0.0, upper, xtol=1e-12 * upper, rtol=1e-12))


def users_for_lift(
    baseline: Baseline,
    *,
    lift: float,
    power: float,
    confidence: float,
    share_treatment: float = 0.5,
) -> UsersNeeded:
    """How many users it takes to find ``lift`` (relative) with chance ``power``.

    Args:
        baseline: of the metric.
        lift: not 0; −0.01 is 1 % less.
        power: between 1 − ``confidence`` and 1.
        confidence: of the test.
        share_treatment: of the two arms' users.

    Raises:
        ValueError: an argument outside its range.
    """
    _require_power(power, confidence=confidence)
    require_share(share_treatment, name="share_treatment")
    if lift == 0 or not math.isfinite(lift):
        raise ValueError(f"power: lift must be finite and not 0, got {lift}; no size finds nothing")

    def missing_power(num_users: float) -> float:
        return power - power_of_lift(
            baseline,
            lift=lift,
            num_users_control=num_users * (1 - share_treatment),
            num_users_treatment=num_users * share_treatment,
            confidence=confidence,
        )

    if not lift > -1:
        raise ValueError(f"power: a lift must be above -1 (nothing left), got {lift}")
    lower = (2 + 1e-9) / min(share_treatment, 1 - share_treatment)  # not below 2 by rounding
    upper = 2 * lower
    while missing_power(upper) > 0:
        upper *= 2
    if missing_power(lower) < 0:
        upper = lower
    num_users = upper if upper == lower else float(brentq(missing_power, lower, upper, rtol=1e-12))
    return UsersNeeded(
        control=math.ceil(num_users * (1 - share_treatment) - 1e-6),
        treatment=math.ceil(num_users * share_treatment - 1e-6),
    )


def _critical(degrees_of_freedom: float, *, confidence: float) -> float:
    if degrees_of_freedom > _NORMAL_FROM_DF:
        return float(norm.ppf((1 + confidence) / 2))
    return float(stdtrit(degrees_of_freedom, (1 + confidence) / 2))


def _require_users(num_users_control: float, num_users_treatment: float) -> None:
    if num_users_control < 2 or num_users_treatment < 2:
        raise ValueError(
            f"power: expected at least 2 users an arm, got {num_users_control:g} in control and "
            f"{num_users_treatment:g} in treatment"
        )


def _require_power(power: float, *, confidence: float) -> None:
    require_share(confidence, name="confidence")
    if not 1 - confidence < power < 1:
        raise ValueError(
            f"power must be between {1 - confidence:g} (the false alarms) and 1, got {power}"
        )
