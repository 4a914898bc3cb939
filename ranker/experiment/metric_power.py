"""What an experiment could see of a metric: its minimal detectable lift, and the users it takes."""

from __future__ import annotations

from ranker.experiment.analysis_settings import AnalysisSettings
from ranker.experiment.metric import MetricSpec
from ranker.experiment.metric_result import MetricPower
from ranker.experiment.metric_users import MetricUsers
from ranker.experiment.outcomes_table import Outcomes
from ranker.experiment.power import Baseline, detectable_lift, power_of_lift, users_for_lift


def metric_power(
    users: MetricUsers,
    outcomes: Outcomes,
    metric: MetricSpec,
    *,
    treatment: str,
    settings: AnalysisSettings,
) -> MetricPower:
    """Power of the test at a single look, from the control arm's users and from the pre-period.

    Args:
        users: of the metric.
        outcomes: says who is in which arm.
        metric: gives the lift to see.
        treatment: compared with control.
        settings: confidence, power, and the shares by which more users would be split.
    """
    confidence, power = settings.confidence, settings.power
    control = users.moments_of(outcomes.users_of(outcomes.arms[0]))
    num_treatment = users.moments_of(outcomes.users_of(treatment)).num_users
    if control.num_users < 2 or num_treatment < 2:
        return MetricPower(target_lift=metric.target_lift, reason="fewer than 2 users in an arm")
    try:
        baseline = Baseline.of_moments(
            control, quantity=users.quantity, covariates=users.covariates
        )
    except ValueError as error:
        return MetricPower(target_lift=metric.target_lift, reason=str(error))
    return MetricPower(
        target_lift=metric.target_lift,
        power_of_target=power_of_lift(
            baseline,
            lift=metric.target_lift,
            num_users_control=control.num_users,
            num_users_treatment=num_treatment,
            confidence=confidence,
        ),
        detectable_lift=detectable_lift(
            baseline,
            power=power,
            num_users_control=control.num_users,
            num_users_treatment=num_treatment,
            confidence=confidence,
        ),
        detectable_lift_before=_before(
            users,
            num_users=(control.num_users, num_treatment),
            confidence=confidence,
            power=power,
        ),
        users_needed=users_for_lift(
            baseline,
            lift=metric.target_lift,
            power=power,
            confidence=confidence,
            share_treatment=_share(settings, treatment),
        ),
    )


def _share(settings: AnalysisSettings, treatment: str) -> float:
    shares = settings.share_by_arm
    return shares[treatment] / (shares[treatment] + shares[settings.control])


def _before(
    users: MetricUsers, *, num_users: tuple[int, int], confidence: float, power: float
) -> float | None:
    past = users.past_moments()
    if past is None:
        return None
    try:
        baseline = Baseline.of_moments(past[0], quantity=past[1])
    except ValueError:  # nobody did it before, or everybody as much
        return None
    return detectable_lift(
        baseline,
        power=power,
        num_users_control=num_users[0],
        num_users_treatment=num_users[1],
        confidence=confidence,
    )
