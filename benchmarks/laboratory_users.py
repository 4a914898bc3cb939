"""Users with known truth: heavy-tailed, several rows each, and a past that resembles the present.

A user has an activity A (gamma) and a taste T (lognormal), both his for good. In a period he makes
1 + Poisson(A) visits and watches T x gamma noise seconds on each. Treatment multiplies seconds by
1 + lift, so that every mean, ratio and quantile of seconds has that lift.

Shapes: U users, N visits, D days.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MEAN_ACTIVITY, ACTIVITY_SHAPE = 4.0, 4.0
MEAN_TASTE_S, TASTE_SIGMA = 30.0, 0.7
NOISE_SHAPE = 1.0
MEAN_SECONDS = (1 + MEAN_ACTIVITY) * MEAN_TASTE_S


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Arm:
    """Users of one arm: sums of both periods [U], and the visits behind the present [N]."""

    seconds: FloatArray
    visits: FloatArray
    past_seconds: FloatArray
    past_visits: FloatArray
    row_seconds: FloatArray
    row_users: IntArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Days:
    """Seconds and visits of users who were there from the first day, [U, D]."""

    seconds: FloatArray
    visits: FloatArray


def draw_arm(num_users: int, *, lift: float, rng: np.random.Generator) -> Arm:
    activities, tastes_s = draw_traits(num_users, rng=rng)
    visits = 1 + rng.poisson(activities)
    past_visits = 1 + rng.poisson(activities)
    row_users = np.repeat(np.arange(num_users), visits)
    noise = rng.gamma(NOISE_SHAPE, 1 / NOISE_SHAPE, size=len(row_users))
    row_seconds = (1 + lift) * tastes_s[row_users] * noise
    return Arm(
        seconds=np.bincount(row_users, weights=row_seconds, minlength=num_users),
        visits=visits.astype(np.float64),
        past_seconds=tastes_s * rng.gamma(NOISE_SHAPE * past_visits, 1 / NOISE_SHAPE),
        past_visits=past_visits.astype(np.float64),
        row_seconds=row_seconds,
        row_users=row_users,
    )


def draw_days(num_users: int, *, num_days: int, rng: np.random.Generator) -> Days:
    activities, tastes_s = draw_traits(num_users, rng=rng)
    visits = rng.poisson(activities[:, None] / 4, size=(num_users, num_days))
    noise = rng.gamma(NOISE_SHAPE * visits, 1 / NOISE_SHAPE)
    return Days(seconds=tastes_s[:, None] * noise, visits=visits.astype(np.float64))


def draw_traits(num_users: int, *, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    activities = rng.gamma(ACTIVITY_SHAPE, MEAN_ACTIVITY / ACTIVITY_SHAPE, size=num_users)
    tastes_s = MEAN_TASTE_S * rng.lognormal(-(TASTE_SIGMA**2) / 2, TASTE_SIGMA, size=num_users)
    return activities, tastes_s


def past_correlation() -> float:
    """Of a user's seconds in two periods: the share of their variance that his traits explain.

    Given A and T, seconds have mean T(1 + A) and variance T²((1 + A)/shape + A).
    """
    taste_square = math.exp(TASTE_SIGMA**2)  # in units of the squared mean
    activity_variance = MEAN_ACTIVITY**2 / ACTIVITY_SHAPE
    mean_visits = 1 + MEAN_ACTIVITY
    traits = taste_square * (mean_visits**2 + activity_variance) - mean_visits**2
    within = taste_square * (mean_visits / NOISE_SHAPE + MEAN_ACTIVITY)
    return traits / (traits + within)
