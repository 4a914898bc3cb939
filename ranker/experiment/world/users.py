"""The users: tastes, devices, how often they come.

Shapes: ``U`` users, ``T`` topics, ``D`` devices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ranker.experiment.world.randomness import FloatArray, IntArray, Source, generator
from ranker.experiment.world.settings import WorldSettings

AGE_GROUPS = np.array(["under_25", "25_to_39", "40_to_59", "60_plus"])
SHARE_OF_AGE = 0.36  # of the variance of taste: what a ranker can know of a new user
DEVICE_HABIT = 1.0  # spread of a user's own preference for devices, on the logit


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Users:
    """One entry a user.

    Attributes:
        age_group: index into `AGE_GROUPS`, [U].
        tenure_days: since the user joined, on day 0, [U].
        taste: for each topic mean 0 and deviation 1 over users, [U, T].
        device_logits: of a session's device, [U, D].
        further_requests: mean requests of an active day beyond the first, [U].
        return_logit: P(active tomorrow | active today) after a day of average satisfaction, [U].
    """

    age_group: IntArray
    tenure_days: IntArray
    taste: FloatArray
    device_logits: FloatArray
    further_requests: FloatArray
    return_logit: FloatArray


def draw_users(settings: WorldSettings) -> Users:
    """Draw the users of a world."""
    rng = generator(settings.seed, Source.USERS)
    num_users, activity = settings.num_users, settings.activity
    age_group = rng.integers(len(AGE_GROUPS), size=num_users)  # [U]
    age_taste = rng.normal(size=(len(AGE_GROUPS), settings.num_topics))
    own_taste = rng.normal(size=(num_users, settings.num_topics))
    taste = np.sqrt(SHARE_OF_AGE) * age_taste[age_group] + np.sqrt(1 - SHARE_OF_AGE) * own_taste
    shares = np.log([device.share for device in settings.devices])
    habits = rng.normal(size=(num_users, len(shares)))
    # exp(s z − s²/2) has mean 1 for standard normal z.
    frequency = np.exp(activity.spread * rng.normal(size=num_users) - activity.spread**2 / 2)
    loyalty = activity.return_spread * rng.normal(size=num_users)
    return Users(
        age_group=age_group,
        tenure_days=rng.geometric(1 / 400, size=num_users),
        taste=standardised(taste),
        device_logits=shares + DEVICE_HABIT * habits,
        further_requests=(activity.requests_per_day - 1) * frequency,
        return_logit=np.log(activity.return_rate / (1 - activity.return_rate)) + loyalty,
    )


def standardised(columns: FloatArray) -> FloatArray:
    """Columns with mean 0 and deviation 1; a constant column becomes zeros."""
    centred = columns - columns.mean(axis=0)
    deviation = centred.std(axis=0)
    return np.asarray(centred / np.where(deviation > 0, deviation, 1.0))
