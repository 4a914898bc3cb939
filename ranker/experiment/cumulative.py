"""A metric's lift as it grew day by day, with a confidence sequence: what peeking may look at.

Shapes: ``K`` looks (days with rows).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ranker.experiment.effect import Effect, FloatArray
from ranker.experiment.lift import JsonScalar
from ranker.experiment.metric import MeanMeasure, MetricSpec, QuantileMeasure, RatioMeasure
from ranker.experiment.metric_users import MetricUsers, metric_users
from ranker.experiment.outcomes_table import Outcomes
from ranker.experiment.quantiles import quantile_effect
from ranker.experiment.row_quantiles import quantile_sample
from ranker.experiment.sequential import asymptotic_sequence
from ranker.experiment.user_sums import UserSums

# The sequence is narrowest at this share of the first look's standard error: set by the first look
# alone, so that analysing again tomorrow continues one and the same sequence.
NARROWEST_AT = 0.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CumulativeLift:
    """Lift from all rows up to each day.

    Attributes:
        treatment: arm.
        confidence: of the whole sequence.
        day_labels: K of them.
        num_users: in both arms with a value so far, [K].
        lifts: NaN where a day has none yet, [K].
        lows, highs: of the confidence sequence, which holds on all days together, [K].
        fixed_lows, fixed_highs: of the interval for a single look, for comparison, [K].
    """

    treatment: str
    confidence: float
    day_labels: tuple[str, ...]
    num_users: FloatArray
    lifts: FloatArray
    lows: FloatArray
    highs: FloatArray
    fixed_lows: FloatArray
    fixed_highs: FloatArray

    def to_json(self) -> list[dict[str, JsonScalar]]:
        """One object a day, NaN as None."""
        columns = [self.num_users, self.lifts, self.lows, self.highs]
        columns += [self.fixed_lows, self.fixed_highs]
        names = ("num_users", "lift", "low", "high", "fixed_low", "fixed_high")
        return [
            {"day": day}
            | {n: v if np.isfinite(v) else None for n, v in zip(names, row, strict=True)}
            for day, row in zip(self.day_labels, np.stack(columns, axis=1).tolist(), strict=True)
        ]


def cumulative_lifts(
    outcomes: Outcomes, metric: MetricSpec, *, confidence: float, fixed_confidence: float
) -> tuple[CumulativeLift, ...]:
    """The course of each treatment's lift on one metric, with CUPED where there is a pre-period.

    A quantile is looked at on every day, too. The confidence sequence is that of
    `ranker.experiment.sequential.asymptotic_sequence`, over the lifts and their standard errors.

    Args:
        outcomes: with days.
        metric: any.
        confidence: of each sequence.
        fixed_confidence: of the intervals for a single look.
    """
    effects_by_look = list(_effects_by_look(outcomes, metric, confidence=fixed_confidence))
    return tuple(
        _course(
            [effects[place] for effects in effects_by_look],
            outcomes=outcomes,
            treatment=treatment,
            confidence=confidence,
        )
        for place, treatment in enumerate(outcomes.arms[1:])
    )


def _effects_by_look(
    outcomes: Outcomes, metric: MetricSpec, *, confidence: float
) -> Iterator[list[Effect]]:
    """Each treatment's effect after each day."""
    match metric.measure:
        case QuantileMeasure():
            for stop in outcomes.rows.day_starts[1:].tolist():
                samples = [
                    quantile_sample(outcomes, metric.measure, arm=arm, num_rows=stop)
                    for arm in outcomes.arms
                ]
                yield [
                    quantile_effect(
                        samples[0], one, quantile=metric.measure.quantile, confidence=confidence
                    )
                    for one in samples[1:]
                ]
        case MeanMeasure() | RatioMeasure():
            for users in _users_by_look(outcomes, metric, metric.measure):
                arms = [users.moments_of(outcomes.users_of(arm)) for arm in outcomes.arms]
                yield [users.best_effect(arms[0], one, confidence=confidence) for one in arms[1:]]


def _users_by_look(
    outcomes: Outcomes, metric: MetricSpec, measure: MeanMeasure | RatioMeasure
) -> Iterator[MetricUsers]:
    rows, past = outcomes.rows, outcomes.past_by_metric.get(metric.name)
    sums = UserSums.empty(num_columns=len(metric.columns), num_users=outcomes.num_users)
    starts = rows.day_starts.tolist()
    for start, stop in pairwise(starts):
        values = [rows.column_by_name[name][start:stop] for name in metric.columns]
        sums.add(rows.users[start:stop], values)
        yield metric_users(measure, sums=sums, past=past)


def _course(
    effects: list[Effect], *, outcomes: Outcomes, treatment: str, confidence: float
) -> CumulativeLift:
    lifts = _column([effect.lift for effect in effects])
    errors = _column([effect.lift_se for effect in effects])
    errors[errors <= 0] = np.nan
    known = errors[np.isfinite(errors)]
    lows = highs = np.full(len(effects), np.nan)
    if len(known):
        sequence = asymptotic_sequence(
            looks=outcomes.rows.days,
            estimates=np.where(np.isnan(errors), np.nan, lifts),
            standard_errors=errors,
            tightest_at_se=NARROWEST_AT * float(known[0]),
            confidence=confidence,
        )
        lows, highs = sequence.low, sequence.high
    return CumulativeLift(
        treatment=treatment,
        confidence=confidence,
        day_labels=outcomes.rows.day_labels,
        num_users=_column([e.num_users_control + e.num_users_treatment for e in effects]),
        lifts=lifts,
        lows=lows,
        highs=highs,
        fixed_lows=_column([effect.lift_ci_low for effect in effects]),
        fixed_highs=_column([effect.lift_ci_high for effect in effects]),
    )


def _column(values: list[float | None] | list[int] | list[float]) -> FloatArray:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
