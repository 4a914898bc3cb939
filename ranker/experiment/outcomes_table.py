"""An experiment's outcomes by user and by row, as every analysis starts from.

Shapes: ``U`` users, ``N`` rows of the experiment, ``D`` days with rows, ``A`` arms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ranker.experiment.effect import FloatArray
from ranker.experiment.user_sums import UserSums

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OutcomeRows:
    """Rows of the experiment, in the order of their days.

    Attributes:
        users: whose row it is, 0 to U − 1, [N].
        days: numbers of the days that have rows, increasing, [D]; one day where the table has none.
        day_labels: the same for people; empty where the table has no days.
        day_starts: where each day's rows begin, and N at the end, [D + 1].
        column_by_name: metric columns, NaN = not observed, each [N].
    """

    users: NDArray[np.int32]
    days: IntArray
    day_labels: tuple[str, ...]
    day_starts: IntArray
    column_by_name: Mapping[str, FloatArray]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slicing:
    """A way to divide users.

    Attributes:
        values: names of the slices.
        codes: each user's slice, [U].
    """

    values: tuple[str, ...]
    codes: IntArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcomes:
    """Users of an experiment, sorted by arm: those of an arm stand together.

    Attributes:
        arms: control first, A of them.
        arm_starts: where each arm's users begin, and U at the end, [A + 1].
        past_by_metric: sums of the pre-period by metric; empty without a pre-period.
        notes: what was found on the way, in sentences.
    """

    arms: tuple[str, ...]
    arm_starts: IntArray
    rows: OutcomeRows
    past_by_metric: Mapping[str, UserSums]
    slicing_by_name: Mapping[str, Slicing]
    notes: tuple[str, ...]

    @property
    def num_users(self) -> int:
        """U."""
        return int(self.arm_starts[-1])

    @property
    def num_users_by_arm(self) -> dict[str, int]:
        """Users by arm."""
        return dict(zip(self.arms, np.diff(self.arm_starts).tolist(), strict=True))

    def users_of(self, arm: str) -> slice:
        """Where the users of ``arm`` stand."""
        place = self.arms.index(arm)
        return slice(int(self.arm_starts[place]), int(self.arm_starts[place + 1]))
