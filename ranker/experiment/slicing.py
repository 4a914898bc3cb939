"""A metric's effect among some of the users: by device, by country, by tenure."""

from __future__ import annotations

import numpy as np

from ranker.experiment.effect import Effect
from ranker.experiment.metric_result import SliceEffect
from ranker.experiment.metric_users import MetricUsers
from ranker.experiment.multiplicity import benjamini_hochberg
from ranker.experiment.outcomes_table import Outcomes


def slice_effects(
    users: MetricUsers, outcomes: Outcomes, *, treatment: str, confidence: float
) -> tuple[SliceEffect, ...]:
    """Effects in every slice of every slicing, with CUPED where there is a pre-period.

    p-values are adjusted (Benjamini–Hochberg) over all slices of this metric and treatment: slices
    show where to look next, they don't decide.
    """
    found: list[tuple[str, str, Effect]] = []
    for name, slicing in outcomes.slicing_by_name.items():
        for code, value in enumerate(slicing.values):
            members = users.within(slicing.codes == code)
            effect = members.best_effect(
                members.moments_of(outcomes.users_of(outcomes.arms[0])),
                members.moments_of(outcomes.users_of(treatment)),
                confidence=confidence,
            )
            found.append((name, value, effect))
    adjusted = benjamini_hochberg(np.array([effect.p_value for _, _, effect in found]))
    return tuple(
        SliceEffect(slicing=name, value=value, effect=effect, p_adjusted=p)
        for (name, value, effect), p in zip(found, adjusted.tolist(), strict=True)
    )
