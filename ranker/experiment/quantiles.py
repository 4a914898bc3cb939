"""Quantiles of rows (page load times, watch times) when it is users that are independent.

Shapes: ``N`` rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ranker.experiment.effect import (
    ArmEstimate,
    Effect,
    FloatArray,
    compare_arms,
    require_share,
)
from ranker.experiment.moments import moments
from ranker.experiment.ratios import Quantity, estimate
from ranker.experiment.resampling import RowsByUser

# Half-width, in standard errors of the share of rows below, over which the slope is taken.
_STEP = 1.959963984540054
# Share of rows tied with one, in standard errors of that share: beyond, jumps show in simulations.
_MOST_TIED = 0.75


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QuantileSample:
    """An arm's rows; one row a user is the special case.

    Attributes:
        values: NaN = not observed, [N].
        user_codes: whose row it is: small whole numbers from 0 up, as `numpy.unique` gives, [N].
    """

    values: FloatArray
    user_codes: NDArray[np.int64]

    def __post_init__(self) -> None:
        if len(self.values) != len(self.user_codes):
            raise ValueError(
                f"quantile: expected as many user codes as values, got {len(self.user_codes)} "
                f"and {len(self.values)}"
            )
        if len(self.user_codes) and self.user_codes.min() < 0:
            raise ValueError(
                f"quantile: user codes must be >= 0, got {self.user_codes.min()}; "
                "numpy.unique(..., return_inverse=True) gives such codes"
            )
        if np.isinf(self.values).any():
            raise ValueError("quantile: expected finite values, got an infinite one; mend it")

    @property
    def num_users(self) -> int:
        """Codes from 0 up to the largest one."""
        return int(self.user_codes.max()) + 1 if len(self.user_codes) else 0

    def of_users(self, picks: NDArray[np.int64]) -> Self:
        """The rows of the picked users; one picked twice counts as two users."""
        by_user = RowsByUser.of(self.user_codes, num_users=self.num_users)
        return type(self)(
            values=self.values[by_user.rows_of(picks)],
            user_codes=np.repeat(np.arange(len(picks)), by_user.counts[picks]),
        )


def quantile_effect(
    control: QuantileSample, treatment: QuantileSample, *, quantile: float, confidence: float
) -> Effect:
    """Compare the ``quantile`` (0.5 = median) of all rows, interpolated as `numpy.quantile` does.

    The share F of rows below the arm's quantile q is a ratio of sums by user, so its standard error
    s comes from the delta method. Turned back into the metric's unit (Woodruff 1952; Deng, Knoblich
    & Lu, KDD 2018, §4.2), q's standard error is (Q(p + z·s) − Q(p − z·s)) / 2z, z = 1.96 whatever
    ``confidence``: no density is estimated, and rows of one user may be as alike as they like.

    No interval (a reason instead) when p ± z·s leaves (0, 1), for lack of users, or when the
    average row between shares its value with more than ¾·s of all rows: the quantile of whole
    numbers moves in jumps, and interpolating between them finds effects that aren't there.

    Raises:
        ValueError: ``quantile`` or ``confidence`` outside (0, 1).
    """
    require_share(quantile, name="quantile")
    control_arm, control_reason = _estimate(control, quantile=quantile, name="control")
    treatment_arm, treatment_reason = _estimate(treatment, quantile=quantile, name="treatment")
    return compare_arms(
        control_arm,
        treatment_arm,
        method=f"quantile {quantile:g}",
        confidence=confidence,
        reason=control_reason or treatment_reason,
    )


def _estimate(sample: QuantileSample, *, quantile: float, name: str) -> tuple[ArmEstimate, str]:
    observed = ~np.isnan(sample.values)
    values, codes = sample.values[observed], sample.user_codes[observed]
    rows = np.bincount(codes).astype(np.float64)
    present = rows > 0
    num_users = int(np.count_nonzero(present))
    if num_users < 2:
        value = float(np.quantile(values, quantile)) if num_users else math.nan
        reason = f"{num_users} user(s) in {name}; an interval needs at least 2"
        return ArmEstimate(value=value, squared_se=math.nan, num_users=num_users), reason
    value = float(np.quantile(values, quantile))
    below = np.bincount(codes, weights=values <= value)
    share_below = estimate(
        moments({"below": below[present].astype(np.float64), "rows": rows[present]}),
        Quantity(numerator="below", denominator="rows"),
    )
    share_se = math.sqrt(share_below.squared_se)
    low, high = quantile - _STEP * share_se, quantile + _STEP * share_se
    squared_se, reason = math.nan, ""
    if low <= 0 or high >= 1:
        reason = f"{num_users} users in {name} are too few for the quantile {quantile:g}"
    else:
        lowest, highest = np.quantile(values, [low, high]).tolist()
        near = values[(values >= lowest) & (values <= highest)]
        ties = np.unique(near, return_counts=True)[1]
        tied_share = float(np.sum(ties**2) / np.sum(ties)) / len(values)
        squared_se = ((highest - lowest) / (2 * _STEP)) ** 2
        if tied_share > _MOST_TIED * share_se:
            reason = f"too many rows in {name} tie near the quantile {quantile:g}, {value:g}"
    return ArmEstimate(value=value, squared_se=squared_se, num_users=num_users), reason
