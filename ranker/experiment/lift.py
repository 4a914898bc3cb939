"""Lift: (treatment − control) / control, with an interval and a verdict.

Shapes: ``B`` replicates (refits of the response model).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t

from ranker.schema import TaskSpec

JsonScalar = str | int | float | None


class MetricVerdict(StrEnum):
    """What the interval says of treatment, in the metric's own direction."""

    BETTER = "better"
    WORSE = "worse"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lift:
    """One metric of an experiment: a task's outcomes summed per user, averaged over users.

    Attributes:
        direction: ``negative`` where less is better (dismissals).
        control_mean, treatment_mean: per user, in the task's unit; None without users.
        lift: relative: 0.05 is 5 % more. None where ``reason`` says why.
        ci_low, ci_high: None exactly where ``lift`` is.
    """

    metric: str
    family: Literal["engagement", "satisfaction"]
    direction: Literal["positive", "negative"]
    control_mean: float | None
    treatment_mean: float | None
    lift: float | None
    ci_low: float | None
    ci_high: float | None
    num_users_control: int
    num_users_treatment: int
    reason: str = ""

    @property
    def verdict(self) -> MetricVerdict:
        """Better or worse where the interval excludes 0."""
        if self.ci_low is None or self.ci_high is None or self.ci_low <= 0 <= self.ci_high:
            return MetricVerdict.CANNOT_TELL
        more_is_better = self.direction == "positive"
        return MetricVerdict.BETTER if (self.ci_low > 0) == more_is_better else MetricVerdict.WORSE

    def to_json(self) -> dict[str, JsonScalar]:
        """Every field and the verdict, ready for ``json.dumps``."""
        return {
            "metric": self.metric,
            "family": self.family,
            "direction": self.direction,
            "control_mean": self.control_mean,
            "treatment_mean": self.treatment_mean,
            "lift": self.lift,
            "ci_low": self.ci_low,
            "ci_high": self.ci_high,
            "num_users_control": self.num_users_control,
            "num_users_treatment": self.num_users_treatment,
            "verdict": str(self.verdict),
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ArmMeans:
    """A metric's mean per user in one arm.

    Attributes:
        point: of the experiment itself.
        replicates: of its bootstrap replicates, paired with the other arm's, [B].
    """

    point: float
    replicates: NDArray[np.float64]
    num_users: int


def estimate_lift(
    task: TaskSpec, *, control: ArmMeans, treatment: ArmMeans, confidence: float, reason: str = ""
) -> Lift:
    """Lift of ``treatment`` over ``control`` with a bootstrap interval.

    The point is T/C − 1 of the point means. Its standard error is the standard deviation of
    (T_b − (T/C)·C_b) / C over the replicates b: to first order that of T_b/C_b, but a replicate
    whose control mean is near zero can't blow it up. The interval is point ± t·SE with B − 1
    degrees of freedom, since the standard error itself is estimated from B values.

    Args:
        task: gives the metric's name, family and direction.
        control: means of the control arm.
        treatment: means of the treatment arm.
        confidence: of the interval, in (0, 1).
        reason: why there can be no lift, if the caller knows; the means are still reported.
    """
    reason = reason or _why_no_lift(control, treatment)
    point = low = high = None
    if not reason:
        ratio = treatment.point / control.point
        deviations = (treatment.replicates - ratio * control.replicates) / control.point  # [B]
        num_replicates = len(deviations)
        quantile = float(student_t.ppf((1 + confidence) / 2, df=num_replicates - 1))
        margin = quantile * float(np.std(deviations, ddof=1))
        if margin == 0 and ratio != 1:  # as where an arm of few users had no outcome in any
            reason = f"{num_replicates} replicates don't differ: too few outcomes for an interval"
        else:
            point = ratio - 1
            low, high = point - margin, point + margin
    return Lift(
        metric=task.name,
        family=task.family,
        direction=task.direction,
        control_mean=_finite_or_none(control.point),
        treatment_mean=_finite_or_none(treatment.point),
        lift=point,
        ci_low=low,
        ci_high=high,
        num_users_control=control.num_users,
        num_users_treatment=treatment.num_users,
        reason=reason,
    )


def _why_no_lift(control: ArmMeans, treatment: ArmMeans) -> str:
    for name, arm in (("control", control), ("treatment", treatment)):
        if arm.num_users < 2:
            return f"{arm.num_users} user(s) in {name}; an interval needs at least 2"
    if len(control.replicates) < 2:
        return f"{len(control.replicates)} replicate(s); an interval needs at least 2"
    if not math.isfinite(control.point) or not math.isfinite(treatment.point):
        return "the metric can't be predicted"
    if control.point <= 0:
        return f"the control mean is {control.point:g}; a relative lift needs one above 0"
    if not (np.isfinite(control.replicates).all() and np.isfinite(treatment.replicates).all()):
        return "the metric can't be predicted in some refits"
    if treatment.point == 0 and not treatment.replicates.any():
        return "nothing happened in treatment, in no replicate either: too few events"
    return ""


def _finite_or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
