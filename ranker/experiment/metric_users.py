"""A mean's or ratio's users with their columns, from which moments and effects are made.

Shapes: ``U`` users of the experiment, ``N`` of them with an observed value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ranker.experiment.covariates import cuped_effect_from_moments, fill_missing
from ranker.experiment.effect import Effect, FloatArray
from ranker.experiment.metric import MeanMeasure, RatioMeasure
from ranker.experiment.moments import Moments, moments
from ranker.experiment.outcomes_table import IntArray, OutcomeRows
from ranker.experiment.ratios import Quantity, effect_from_moments
from ranker.experiment.user_sums import UserSums
from ranker.experiment.winsorising import winsor_limits

_NO_PAST = Quantity(numerator="no past")
_QUANTITY = {
    "mean": (Quantity(numerator="outcome"), Quantity(numerator="past")),
    "ratio": (
        Quantity(numerator="numerator", denominator="denominator"),
        Quantity(numerator="past numerator", denominator="past denominator"),
    ),
}
# A user's columns are called as the quantities above call them.
_COLUMNS = {
    "mean": (("outcome",), ("past",)),
    "ratio": (("numerator", "denominator"), ("past numerator", "past denominator")),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MetricUsers:
    """Users with an observed value of one metric.

    Attributes:
        users: places among the experiment's, increasing, [N].
        column_by_name: their sums, in the experiment and before it; finite, each [N].
        quantity: the metric.
        covariates: what CUPED adjusts by; empty without a pre-period.
    """

    users: IntArray
    column_by_name: Mapping[str, FloatArray]
    quantity: Quantity
    covariates: tuple[Quantity, ...]

    def within(self, is_member: NDArray[np.bool_]) -> Self:
        """Those of the users marked in ``is_member`` [U]."""
        chosen = is_member[self.users]
        columns = {name: values[chosen] for name, values in self.column_by_name.items()}
        return replace(self, users=self.users[chosen], column_by_name=columns)

    def of_users(self, span: slice) -> dict[str, FloatArray]:
        """Columns of the users in a ``span`` of the experiment's, such as an arm."""
        start, stop = np.searchsorted(self.users, [span.start, span.stop]).tolist()
        return {name: values[start:stop] for name, values in self.column_by_name.items()}

    def moments_of(self, span: slice) -> Moments:
        """Moments of the users in a ``span``."""
        return moments(self.of_users(span))

    def effect(self, control: Moments, treatment: Moments, *, confidence: float) -> Effect:
        """Compare two sets of users without adjusting."""
        return effect_from_moments(
            control, treatment, quantity=self.quantity, confidence=confidence
        )

    def best_effect(self, control: Moments, treatment: Moments, *, confidence: float) -> Effect:
        """Compare two sets of users, with CUPED where there is a pre-period."""
        if not self.covariates:
            return self.effect(control, treatment, confidence=confidence)
        return cuped_effect_from_moments(
            control,
            treatment,
            quantity=self.quantity,
            covariates=self.covariates,
            confidence=confidence,
        )

    def effect_before(
        self, control: Moments, treatment: Moments, *, confidence: float
    ) -> Effect | None:
        """Compare the same metric in the pre-period, when there was nothing to tell; or None."""
        if not self.covariates:
            return None
        return effect_from_moments(
            control, treatment, quantity=self.covariates[0], confidence=confidence
        )

    def past_moments(self) -> tuple[Moments, Quantity] | None:
        """The metric in the pre-period, over users of all arms who were there; None without one."""
        if not self.covariates:
            return None
        was_there = self.column_by_name["no past"] == 0
        past = {
            name: values[was_there]
            for name, values in self.column_by_name.items()
            if name.startswith("past")
        }
        return moments(past), self.covariates[0]


def sum_rows(rows: OutcomeRows, columns: tuple[str, ...], *, num_users: int) -> UserSums:
    """Each user's sums over all rows of the experiment."""
    sums = UserSums.empty(num_columns=len(columns), num_users=num_users)
    sums.add(rows.users, [rows.column_by_name[name] for name in columns])
    return sums


def metric_users(
    measure: MeanMeasure | RatioMeasure, *, sums: UserSums, past: UserSums | None
) -> MetricUsers:
    """Put a metric's users together.

    Users without an observed value are left out, those without a past kept as
    `ranker.experiment.covariates.fill_missing` says. Winsorising, where asked for, has one pair of
    limits for all arms, and another for the pre-period.

    Args:
        measure: how the metric is made.
        sums: of its columns in the experiment.
        past: before it; None without a pre-period.
    """
    names, past_names = _COLUMNS[measure.kind]
    quantity, past_quantity = _QUANTITY[measure.kind]
    users = np.flatnonzero(sums.is_observed)
    columns = {
        name: _winsorised(column[users], measure)
        for name, column in zip(names, sums.columns, strict=True)
    }
    if past is None or not past.is_observed[users].any():
        return MetricUsers(users=users, column_by_name=columns, quantity=quantity, covariates=())
    for name, column in zip(past_names, past.columns, strict=True):
        known = np.where(past.is_observed[users], column[users], np.nan)
        filled = fill_missing(_winsorised(known, measure))
        columns[name], columns["no past"] = filled.values, filled.missing
    return MetricUsers(
        users=users,
        column_by_name=columns,
        quantity=quantity,
        covariates=(past_quantity, _NO_PAST),
    )


def _winsorised(values: FloatArray, measure: MeanMeasure | RatioMeasure) -> FloatArray:
    if isinstance(measure, RatioMeasure) or measure.winsorise_quantile is None:
        return values
    return winsor_limits(values, quantile=measure.winsorise_quantile).apply(values)
