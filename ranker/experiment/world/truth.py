"""The lift that an experiment should find: everybody under one arm against everybody under another.

Shapes: ``U`` users of the world.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ranker.experiment.world.days import Arm
from ranker.experiment.world.experiment import (
    METRICS,
    ExperimentSettings,
    make_plan,
    play_expected,
)
from ranker.experiment.world.world import World

MeanByMetric = dict[str, float]


def true_means(
    world: World, arms: Mapping[str, Arm], *, settings: ExperimentSettings, jobs: int = 1
) -> dict[str, MeanByMetric]:
    """Mean sum per user over the experiment's days by arm, were everybody in that arm.

    Exact for the world's users, requests and slates, chance of behaviour integrated out; with
    interference a mean-field value (see `expect_experiment`), and then not what a split of users
    finds: that is what interference means.

    Raises:
        ValueError: other arms than the settings name, or days that the world lacks.
    """
    plan = make_plan(world, arms, settings=settings)
    means = {}
    for number, name in enumerate(plan.names):
        everyone = replace(plan, arm_of_user=np.full_like(plan.arm_of_user, number))
        totals = dict.fromkeys(METRICS, 0.0)
        for day, sums in play_expected(world, everyone, settings=settings, jobs=jobs):
            if day >= settings.first_day:
                totals = {metric: totals[metric] + sums[metric].sum() for metric in METRICS}
        means[name] = {metric: float(v) / len(plan.arm_of_user) for metric, v in totals.items()}
    return means


def true_lift(
    *, control: MeanByMetric, treatment: MeanByMetric, metric: str, per: str | None = None
) -> float:
    """The lift of ``metric`` per user, or of its ratio to the metric ``per``.

    Raises:
        ValueError: control's value is not above 0: there is no lift relative to it.
    """
    values = [arm[metric] / (1.0 if per is None else arm[per]) for arm in (control, treatment)]
    if not values[0] > 0:
        raise ValueError(f"metric {metric!r}: control's mean must be above 0, got {values[0]}")
    return values[1] / values[0] - 1
