"""One metric of an experiment, analysed for every treatment."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ranker.experiment.analysis_settings import AnalysisSettings
from ranker.experiment.bootstrap import UserPicks, bootstrap_effect
from ranker.experiment.cumulative import CumulativeLift, cumulative_lifts
from ranker.experiment.effect import Effect
from ranker.experiment.metric import MetricSpec, QuantileMeasure, Role
from ranker.experiment.metric_power import metric_power
from ranker.experiment.metric_result import MetricPower, MetricResult, SliceEffect
from ranker.experiment.metric_users import MetricUsers, metric_users, sum_rows
from ranker.experiment.moments import moments
from ranker.experiment.outcomes_table import Outcomes
from ranker.experiment.quantiles import quantile_effect
from ranker.experiment.row_quantiles import quantile_sample
from ranker.experiment.slicing import slice_effects

_ADJUSTMENT: dict[Role, str] = {
    "primary": "Holm",
    "guardrail": "none",
    "secondary": "Benjamini–Hochberg",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricAnalyst:
    """Analyses metrics of one experiment; ``rng`` is for the bootstrap."""

    outcomes: Outcomes
    settings: AnalysisSettings
    rng: np.random.Generator

    def results(self, metric: MetricSpec) -> list[MetricResult]:
        """Each treatment's result; p-values are not yet adjusted for how many there are."""
        courses = self._courses(metric)
        if isinstance(metric.measure, QuantileMeasure):
            return [
                self._quantile_result(metric, metric.measure, course=course, treatment=treatment)
                for treatment, course in courses.items()
            ]
        outcomes = self.outcomes
        sums = sum_rows(outcomes.rows, metric.columns, num_users=outcomes.num_users)
        past = outcomes.past_by_metric.get(metric.name)
        users = metric_users(metric.measure, sums=sums, past=past)
        return [
            self._users_result(metric, users, course=course, treatment=treatment)
            for treatment, course in courses.items()
        ]

    def _users_result(
        self,
        metric: MetricSpec,
        users: MetricUsers,
        *,
        course: CumulativeLift | None,
        treatment: str,
    ) -> MetricResult:
        confidence, outcomes = self.settings.confidence, self.outcomes
        arms = [users.moments_of(outcomes.users_of(arm)) for arm in (outcomes.arms[0], treatment)]
        slices: tuple[SliceEffect, ...] = ()
        before = users.effect_before(*arms, confidence=confidence)
        if metric.role == "primary":
            slices = slice_effects(users, outcomes, treatment=treatment, confidence=confidence)
        return self._result(
            metric,
            course=course,
            treatment=treatment,
            effects=(
                users.effect(*arms, confidence=confidence),
                users.best_effect(*arms, confidence=confidence) if users.covariates else None,
                self._bootstrap_of_users(users, treatment),
            ),
            power=metric_power(
                users, outcomes, metric, treatment=treatment, settings=self.settings
            ),
            slices=slices,
            before=before,
        )

    def _quantile_result(
        self,
        metric: MetricSpec,
        measure: QuantileMeasure,
        *,
        course: CumulativeLift | None,
        treatment: str,
    ) -> MetricResult:
        outcomes = self.outcomes
        control, treated = (
            quantile_sample(outcomes, measure, arm=arm, num_rows=len(outcomes.rows.users))
            for arm in (outcomes.arms[0], treatment)
        )

        def effect_of(control_users: UserPicks, treatment_users: UserPicks) -> Effect:
            return quantile_effect(
                control.of_users(control_users),
                treated.of_users(treatment_users),
                quantile=measure.quantile,
                confidence=self.settings.confidence,
            )

        plain = quantile_effect(
            control, treated, quantile=measure.quantile, confidence=self.settings.confidence
        )
        bootstrap = None
        if self.settings.bootstrap_replicates:
            bootstrap = bootstrap_effect(
                effect_of,
                num_users_control=control.num_users,
                num_users_treatment=treated.num_users,
                confidence=self.settings.confidence,
                num_replicates=self.settings.bootstrap_replicates,
                rng=self.rng,
            )
        return self._result(
            metric,
            course=course,
            treatment=treatment,
            effects=(plain, None, bootstrap),
            power=MetricPower(target_lift=metric.target_lift, reason="not computed for quantiles"),
            slices=(),
        )

    def _result(
        self,
        metric: MetricSpec,
        *,
        course: CumulativeLift | None,
        treatment: str,
        effects: tuple[Effect, Effect | None, Effect | None],
        power: MetricPower,
        slices: tuple[SliceEffect, ...],
        before: Effect | None = None,
    ) -> MetricResult:
        plain, adjusted, bootstrap = effects
        return MetricResult(
            metric=metric,
            treatment=treatment,
            plain=plain,
            adjusted=adjusted,
            p_adjusted=math.nan,
            adjustment=_ADJUSTMENT[metric.role],
            course=course,
            decides_by_course=self.settings.peeking and metric.role != "secondary",
            alpha=1 - self.settings.confidence,
            power=power,
            slices=slices,
            bootstrap=bootstrap,
            before=before,
        )

    def _bootstrap_of_users(self, users: MetricUsers, treatment: str) -> Effect | None:
        if not self.settings.bootstrap_replicates:
            return None
        control, treated = (
            users.of_users(self.outcomes.users_of(arm))
            for arm in (self.outcomes.arms[0], treatment)
        )

        def effect_of(control_users: UserPicks, treatment_users: UserPicks) -> Effect:
            return users.best_effect(
                moments({name: values[control_users] for name, values in control.items()}),
                moments({name: values[treatment_users] for name, values in treated.items()}),
                confidence=self.settings.confidence,
            )

        return bootstrap_effect(
            effect_of,
            num_users_control=len(next(iter(control.values()))),
            num_users_treatment=len(next(iter(treated.values()))),
            confidence=self.settings.confidence,
            num_replicates=self.settings.bootstrap_replicates,
            rng=self.rng,
        )

    def _courses(self, metric: MetricSpec) -> dict[str, CumulativeLift | None]:
        """The course by day of each treatment, of metrics that decide."""
        settings = self.settings
        if not self.outcomes.rows.day_labels or metric.role == "secondary":
            return dict.fromkeys(settings.treatments)
        alpha = 1 - settings.confidence
        if metric.role == "primary":
            num_primary = sum(one.role == "primary" for one in settings.metrics)
            alpha /= num_primary * len(settings.treatments)
        courses = cumulative_lifts(
            self.outcomes, metric, confidence=1 - alpha, fixed_confidence=settings.confidence
        )
        return {course.treatment: course for course in courses}
