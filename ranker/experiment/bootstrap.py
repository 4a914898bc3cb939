"""Bootstrap over users: slow, assumes little, and there to check the other methods against.

Shapes: ``B`` replicates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ranker.experiment.effect import Effect, require_share
from ranker.experiment.resampling import resample

UserPicks = NDArray[np.int64]


def bootstrap_effect(
    effect_of: Callable[[UserPicks, UserPicks], Effect],
    *,
    num_users_control: int,
    num_users_treatment: int,
    confidence: float,
    num_replicates: int,
    rng: np.random.Generator,
) -> Effect:
    """Put percentile intervals on the effect that ``effect_of`` gives for picked users.

    Each arm's users are drawn with replacement, all rows of a drawn user with him (Efron &
    Tibshirani 1993, ch. 13 and 16.4): ``effect_of=lambda control, treatment:
    mean_effect(x[control], y[treatment], confidence=0.95)``. The values are those of all users;
    standard errors are standard deviations over the replicates; p is twice the smaller share of
    replicates on one side of 0, with 1 added to both counts. A replicate's lift may be missing
    where its control value is near 0; then there is none.

    Raises:
        ValueError: fewer than 20 replicates, or ``confidence`` outside (0, 1).
    """
    require_share(confidence, name="confidence")
    if num_replicates < 20:
        raise ValueError(f"bootstrap: num_replicates must be at least 20, got {num_replicates}")
    control, treatment = np.arange(num_users_control), np.arange(num_users_treatment)
    point = effect_of(control, treatment)
    method = f"{point.method}, bootstrap"
    if np.isnan(point.difference_se):
        return replace(point, method=method)
    replicates = [
        effect_of(resample(control, rng=rng), resample(treatment, rng=rng))
        for _ in range(num_replicates)
    ]
    differences = np.array([one.difference for one in replicates])  # [B]
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.quantile(differences, ends).tolist()
    beyond = min(np.count_nonzero(differences <= 0), np.count_nonzero(differences >= 0))
    bootstrapped = replace(
        point,
        method=method,
        difference_se=float(differences.std(ddof=1)),
        difference_ci_low=low,
        difference_ci_high=high,
        p_value=min(1.0, 2 * (int(beyond) + 1) / (num_replicates + 1)),
    )
    lifts = np.array([one.lift for one in replicates if one.lift is not None])
    if point.lift is None or len(lifts) < num_replicates:
        reason = point.reason or "the control value comes near 0 in some replicates"
        return replace(
            bootstrapped,
            lift=None,
            lift_ci_low=None,
            lift_ci_high=None,
            lift_se=None,
            reason=reason,
        )
    lift_low, lift_high = np.quantile(lifts, ends).tolist()
    return replace(
        bootstrapped,
        lift_ci_low=lift_low,
        lift_ci_high=lift_high,
        lift_se=float(lifts.std(ddof=1)),
    )
