"""The true lift of every metric of an experiment in a world, beside what the experiment read."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.compute as pc

from ranker.experiment.analysis import ExperimentAnalysis
from ranker.experiment.metric import MeanMeasure, Measure
from ranker.experiment.metric_result import Json, MetricResult
from ranker.experiment.world.experiment import METRICS
from ranker.experiment.world.truth import MeanByMetric, true_lift


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedLift:
    """An estimated lift, and what it should have been.

    Attributes:
        true_lift: everybody under treatment against everybody under control.
        split_lift: expected of the users as they were split: what is left of the estimate without
            the luck of behaviour. With interference it differs from the true lift.
        estimate, ci_low, ci_high: what the experiment read.
        covers: the interval holds the true lift.
        reason: why a number is missing.
    """

    metric: str
    true_lift: float | None = None
    split_lift: float | None = None
    estimate: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    covers: bool | None = None
    reason: str = ""

    def to_json(self) -> Json:
        """Ready for ``json.dumps``."""
        return asdict(self)


def judge_lifts(
    analysis: ExperimentAnalysis,
    *,
    everybody: Mapping[str, MeanByMetric],
    split: Mapping[str, MeanByMetric],
) -> tuple[JudgedLift, ...]:
    """Each metric's lift against the truth.

    Args:
        analysis: of an experiment with one treatment.
        everybody: mean per user by arm, were everybody in it.
        split: mean per user by arm of the users that are in it.
    """
    arms = analysis.settings.arms
    return tuple(
        _judge(result, [everybody[arm] for arm in arms], [split[arm] for arm in arms])
        for result in analysis.results
    )


def means_by_arm(expected: pa.Table, *, start: datetime.date) -> dict[str, MeanByMetric]:
    """Mean per user by arm of a table of expected outcomes, from ``start`` on."""
    rows = expected.filter(pc.greater_equal(expected.column("day"), pa.scalar(start)))
    # one thread: the order of additions decides a sum's last digit
    sums = rows.group_by("arm", use_threads=False).aggregate(
        [("user", "count_distinct"), *((metric, "sum") for metric in METRICS)]
    )
    return {
        row["arm"]: {
            metric: row[f"{metric}_sum"] / row["user_count_distinct"] for metric in METRICS
        }
        for row in sums.to_pylist()
    }


def _judge(
    result: MetricResult, everybody: list[MeanByMetric], split: list[MeanByMetric]
) -> JudgedLift:
    name, interval = result.metric.name, result.lift_interval
    try:
        truth, expected = (_lift(result.metric.measure, means) for means in (everybody, split))
    except ValueError as error:
        return JudgedLift(metric=name, estimate=result.headline.lift, reason=str(error))
    if interval is None or result.headline.lift is None:
        reason = f"the experiment has no interval: {result.headline.reason}"
        return JudgedLift(metric=name, true_lift=truth, split_lift=expected, reason=reason)
    low, high = interval
    return JudgedLift(
        metric=name,
        true_lift=truth,
        split_lift=expected,
        estimate=result.headline.lift,
        ci_low=low,
        ci_high=high,
        covers=low <= truth <= high,
    )


def _lift(measure: Measure, means: list[MeanByMetric]) -> float:
    """The lift of exact means, control's first.

    Raises:
        ValueError: there is none for such a metric.
    """
    control, treatment = means
    if measure.kind == "quantile":
        raise ValueError("the world knows means, not quantiles")
    if isinstance(measure, MeanMeasure):
        if measure.winsorise_quantile is not None:
            raise ValueError("the world knows means, not winsorised ones")
        return true_lift(control=control, treatment=treatment, metric=measure.column)
    if not (control[measure.denominator] > 0 and treatment[measure.denominator] > 0):
        raise ValueError(f"{measure.denominator} is 0 in an arm")
    return true_lift(
        control=control, treatment=treatment, metric=measure.numerator, per=measure.denominator
    )
