"""The mean per user, by Welch's t-test.

Shapes: ``N`` users.
"""

from __future__ import annotations

import numpy as np

from ranker.experiment.effect import Effect, FloatArray
from ranker.experiment.moments import moments
from ranker.experiment.ratios import Quantity, effect_from_moments


def mean_effect(control: FloatArray, treatment: FloatArray, *, confidence: float) -> Effect:
    """Compare means of ``control`` and ``treatment``, one entry a user, NaN = not observed, [N].

    Users without a value are left out. No interval (a reason instead) with fewer than two users in
    an arm or when nothing varies; see `ranker.experiment.effect.compare_arms`.

    Raises:
        ValueError: an infinite entry, or ``confidence`` outside (0, 1).
    """
    return effect_from_moments(
        moments({"value": control[~np.isnan(control)]}),
        moments({"value": treatment[~np.isnan(treatment)]}),
        quantity=Quantity(numerator="value"),
        confidence=confidence,
    )
