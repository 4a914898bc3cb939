"""All that an experiment says of one metric and one treatment."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from ranker.experiment.cumulative import CumulativeLift
from ranker.experiment.effect import Effect
from ranker.experiment.lift import MetricVerdict
from ranker.experiment.metric import MetricSpec
from ranker.experiment.power import UsersNeeded

Json = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricPower:
    """What the experiment could see of one metric, for a test at a single look.

    Attributes:
        target_lift: what it should be able to see: a guardrail's margin, or a worthwhile lift.
        power_of_target: chance of seeing it with the users there are.
        detectable_lift: the smallest lift seen with the power asked for, with the users there are.
        detectable_lift_before: the same from the pre-period alone, without CUPED: for planning, and
            for an experiment as long as the pre-period.
        users_needed: by arm to see ``target_lift`` with the power asked for.
        reason: why there are no such numbers.
    """

    target_lift: float
    power_of_target: float | None = None
    detectable_lift: float | None = None
    detectable_lift_before: float | None = None
    users_needed: UsersNeeded | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceEffect:
    """A primary metric among some users; ``p_adjusted`` by Benjamini–Hochberg over slices."""

    slicing: str
    value: str
    effect: Effect
    p_adjusted: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricResult:
    """One metric, one treatment against control.

    Attributes:
        plain: without covariates.
        adjusted: by CUPED; None without a pre-period, and for quantiles.
        p_adjusted: of the headline effect, by ``adjustment`` for how many were looked at; NaN where
            there is no test.
        adjustment: "Holm" over primary metrics, "Benjamini–Hochberg" over secondary ones, "none"
            for guardrails, all of which have to hold.
        course: by day; None where the table has no days.
        decides_by_course: the experiment may be stopped at any look: not the single look's interval
            decides but the last of the confidence sequence.
        alpha: chance of a false alarm that its decision may have.
        bootstrap: of the headline effect, where asked for.
        before: the same metric in the pre-period, where an effect says that the arms differed from
            the beginning; None without one.
    """

    metric: MetricSpec
    treatment: str
    plain: Effect
    adjusted: Effect | None
    p_adjusted: float
    adjustment: str
    course: CumulativeLift | None
    decides_by_course: bool
    alpha: float
    power: MetricPower
    slices: tuple[SliceEffect, ...] = ()
    bootstrap: Effect | None = None
    before: Effect | None = None

    @property
    def headline(self) -> Effect:
        """With CUPED where possible."""
        return self.plain if self.adjusted is None else self.adjusted

    @property
    def lift_interval(self) -> tuple[float, float] | None:
        """The interval of the lift that decides; None where there is none."""
        if self.decides_by_course:
            if self.course is None or not math.isfinite(self.course.lows[-1]):
                return None
            return float(self.course.lows[-1]), float(self.course.highs[-1])
        if self.headline.lift_ci_low is None or self.headline.lift_ci_high is None:
            return None
        return self.headline.lift_ci_low, self.headline.lift_ci_high

    @property
    def verdict(self) -> MetricVerdict:
        """Better or worse where the difference is told from 0, after adjusting for how many."""
        if self.decides_by_course:
            interval = self.lift_interval
            if interval is None or interval[0] <= 0 <= interval[1]:
                return MetricVerdict.CANNOT_TELL
            size = interval[0]
        else:
            if not self.p_adjusted < self.alpha:  # NaN is no test
                return MetricVerdict.CANNOT_TELL
            size = self.headline.difference
        return MetricVerdict.BETTER if size * self.metric.sign > 0 else MetricVerdict.WORSE

    def to_json(self) -> Json:
        """Ready for ``json.dumps``."""
        interval = self.lift_interval
        return {
            "metric": self.metric.name,
            "measure": self.metric.measure.model_dump(mode="json"),
            "direction": self.metric.direction,
            "role": self.metric.role,
            "family": self.metric.family,
            "margin": self.metric.margin,
            "treatment": self.treatment,
            "verdict": str(self.verdict),
            "decided_by": "confidence sequence" if self.decides_by_course else "single look",
            "lift_ci_low": None if interval is None else interval[0],
            "lift_ci_high": None if interval is None else interval[1],
            "p_adjusted": self.p_adjusted if math.isfinite(self.p_adjusted) else None,
            "adjustment": self.adjustment,
            "plain": self.plain.to_json(),
            "cuped": None if self.adjusted is None else self.adjusted.to_json(),
            "bootstrap": None if self.bootstrap is None else self.bootstrap.to_json(),
            "before": None if self.before is None else self.before.to_json(),
            "power": asdict(self.power),
            "by_day": [] if self.course is None else self.course.to_json(),
            "slices": [
                {
                    "slicing": one.slicing,
                    "value": one.value,
                    "p_adjusted": one.p_adjusted if math.isfinite(one.p_adjusted) else None,
                    "effect": one.effect.to_json(),
                }
                for one in self.slices
            ],
        }
