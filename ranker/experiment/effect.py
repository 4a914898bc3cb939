"""Effect: treatment against control on one metric, from two arms' estimates.

Every fixed-horizon method (means, ratios, quantiles, with and without covariates) ends here: an arm
is a value with its squared standard error, and two arms are compared by Welch's t-test.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from ranker.experiment.lift import JsonScalar

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmEstimate:
    """One arm's value of a metric.

    Attributes:
        value: mean, ratio or quantile, in the metric's unit; NaN where it has none.
        squared_se: squared standard error of ``value``; NaN with fewer than two users.
        num_users: with an observed value.
    """

    value: float
    squared_se: float
    num_users: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """Treatment against control on one metric.

    Attributes:
        method: how it was estimated: "mean", "ratio", "quantile 0.9", "mean, CUPED", ...
        control, treatment: the arms' values, in the metric's unit; adjusted under CUPED.
        difference: treatment − control.
        difference_se, difference_ci_low, difference_ci_high, p_value: of the difference, p
            two-sided against 0; NaN where ``reason`` says why.
        lift: difference / control: 0.05 is 5 % more. None where ``reason`` says why.
        lift_ci_low, lift_ci_high, lift_se: None exactly where ``lift`` is.
        reason: what stands in the way of an interval, of a lift, or of adjusting by a covariate.
    """

    method: str
    control: float
    treatment: float
    difference: float
    difference_se: float
    difference_ci_low: float
    difference_ci_high: float
    lift: float | None
    lift_ci_low: float | None
    lift_ci_high: float | None
    p_value: float
    num_users_control: int
    num_users_treatment: int
    reason: str = ""
    lift_se: float | None = None

    def to_json(self) -> dict[str, JsonScalar]:
        """Every field, NaN as None, ready for ``json.dumps``."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in values.items()
        }


def compare_arms(
    control: ArmEstimate,
    treatment: ArmEstimate,
    *,
    method: str,
    confidence: float,
    reason: str = "",
) -> Effect:
    """Compare two independent arms.

    With arm values C, T and standard errors c, t of n_C and n_T users:

    - difference T − C, standard error √(t² + c²), Student's t with Welch–Satterthwaite degrees of
      freedom (t² + c²)² / (t⁴/(n_T − 1) + c⁴/(n_C − 1)) (Welch 1947);
    - lift r − 1, r = T/C, with the standard error √(t² + r²c²) / C of the delta method and the
      interval of Fieller (1954): with q the quantile of the same t and g = (q·c/C)²,
      (r ± q·√(t²(1 − g) + r²c²) / C) / (1 − g) − 1. For g → 0 that is lift ± q·(standard error),
      as is, to first order, an interval of log(T/C) (tea-tasting's). Unlike either, Fieller's
      excludes a lift of 0 exactly when ``p_value`` is below 1 − ``confidence``, so that the two
      never contradict each other.

    There is no lift where g ≥ 1, when C itself cannot be told from 0: any quotient fits then.

    Args:
        control: its value and squared standard error.
        treatment: likewise.
        method: name of the estimator.
        confidence: of the intervals, in (0, 1).
        reason: what the caller already knows to stand in the way of any interval.

    Raises:
        ValueError: ``confidence`` outside (0, 1).
    """
    require_share(confidence, name="confidence")
    difference = treatment.value - control.value
    reason = reason or _why_no_interval(control, treatment)
    se = low = high = p_value = math.nan
    lift = lift_low = lift_high = lift_se = None
    if not reason:
        se = math.sqrt(control.squared_se + treatment.squared_se)
        degrees_of_freedom = _degrees_of_freedom(control, treatment)
        quantile = float(stdtrit(degrees_of_freedom, (1 + confidence) / 2))
        low, high = difference - quantile * se, difference + quantile * se
        p_value = float(2 * stdtr(degrees_of_freedom, -abs(difference) / se))
        reason = _why_no_lift(control, treatment, quantile=quantile)
        if not reason:
            lift = treatment.value / control.value - 1
            lift_se = _spread(control, treatment) / control.value
            lift_low, lift_high = _fieller(control, treatment, quantile=quantile)
    return Effect(
        method=method,
        control=control.value,
        treatment=treatment.value,
        difference=difference,
        difference_se=se,
        difference_ci_low=low,
        difference_ci_high=high,
        lift=lift,
        lift_ci_low=lift_low,
        lift_ci_high=lift_high,
        p_value=p_value,
        num_users_control=control.num_users,
        num_users_treatment=treatment.num_users,
        reason=reason,
        lift_se=lift_se,
    )


def require_share(value: float, *, name: str) -> None:
    """Raise a ValueError unless ``value`` lies strictly between 0 and 1."""
    if not 0 < value < 1:
        raise ValueError(f"{name} must be between 0 and 1, got {value}")


def _degrees_of_freedom(control: ArmEstimate, treatment: ArmEstimate) -> float:
    # As shares of the sum: fourth powers of small standard errors would underflow.
    share = control.squared_se / (control.squared_se + treatment.squared_se)
    return 1 / (share**2 / (control.num_users - 1) + (1 - share) ** 2 / (treatment.num_users - 1))


def _spread(control: ArmEstimate, treatment: ArmEstimate, *, shrink: float = 1.0) -> float:
    """√(shrink·t² + r²c²)."""
    ratio = treatment.value / control.value
    return math.sqrt(shrink * treatment.squared_se + ratio**2 * control.squared_se)


def _fieller(
    control: ArmEstimate, treatment: ArmEstimate, *, quantile: float
) -> tuple[float, float]:
    shrink = 1 - quantile**2 * control.squared_se / control.value**2  # 1 − g
    ratio = treatment.value / control.value
    margin = quantile * _spread(control, treatment, shrink=shrink) / control.value
    return (ratio - margin) / shrink - 1, (ratio + margin) / shrink - 1


def _why_no_interval(control: ArmEstimate, treatment: ArmEstimate) -> str:
    for name, arm in (("control", control), ("treatment", treatment)):
        if arm.num_users < 2:
            return f"{arm.num_users} user(s) in {name}; an interval needs at least 2"
        if not (math.isfinite(arm.value) and math.isfinite(arm.squared_se)):
            return f"the metric has no value in {name}: nothing to divide by"
    if control.squared_se + treatment.squared_se == 0:
        return "the metric doesn't vary between users in either arm: no standard error"
    return ""


def _why_no_lift(control: ArmEstimate, treatment: ArmEstimate, *, quantile: float) -> str:
    if control.value <= 0:
        return f"the control value is {control.value:g}; a relative lift needs one above 0"
    if control.value <= quantile * math.sqrt(control.squared_se):
        return f"the control value, {control.value:g}, cannot be told from 0: its lift is unbounded"
    if treatment.value == 0 and treatment.squared_se == 0:
        return "the metric is 0 for every user in treatment: too few events"
    return ""
