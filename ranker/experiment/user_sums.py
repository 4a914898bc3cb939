"""Sums by user of a metric's columns, grown batch by batch or day by day.

Shapes: ``U`` users, ``N`` rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ranker.experiment.effect import FloatArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UserSums:
    """Sums of one metric's columns; `add` grows them in place.

    Attributes:
        columns: one for a mean, numerator and denominator for a ratio, each [U].
        is_observed: users with a row in which all columns were observed, [U].
    """

    columns: tuple[FloatArray, ...]
    is_observed: NDArray[np.bool_]

    @classmethod
    def empty(cls, *, num_columns: int, num_users: int) -> Self:
        """Nothing observed of anybody yet."""
        return cls(
            columns=tuple(np.zeros(num_users) for _ in range(num_columns)),
            is_observed=np.zeros(num_users, dtype=np.bool_),
        )

    def add(self, users: NDArray[np.integer], columns: Sequence[FloatArray]) -> None:
        """Add rows of ``users`` [N]; a row with a NaN in any of ``columns`` [N] counts in none."""
        observed = ~np.isnan(columns[0])
        for values in columns[1:]:
            observed &= ~np.isnan(values)
        everything = bool(observed.all())
        who = users if everything else users[observed]
        self.is_observed[who] = True
        for total, values in zip(self.columns, columns, strict=True):
            np.add.at(total, who, values if everything else values[observed])

    def of_users(self, order: NDArray[np.int64]) -> Self:
        """The users at ``order``, in that order."""
        return type(self)(
            columns=tuple(column[order] for column in self.columns),
            is_observed=self.is_observed[order],
        )
