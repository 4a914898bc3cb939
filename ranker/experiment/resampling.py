"""Bootstrap by user: a drawn user brings all his rows, twice if he is drawn twice.

Shapes: ``N`` rows, ``P`` picks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RowsByUser:
    """Where each user's rows are.

    Attributes:
        order: row indices, sorted by user, [N].
        starts, counts: each user's part of ``order``, [number of users].
    """

    order: IntArray
    starts: IntArray
    counts: IntArray

    @classmethod
    def of(cls, user_codes: IntArray, *, num_users: int) -> Self:
        """Group rows by ``user_codes`` [N], numbers from 0 to ``num_users`` − 1."""
        counts = np.bincount(user_codes, minlength=num_users)
        return cls(
            order=np.argsort(user_codes, kind="stable"),
            starts=np.cumsum(counts) - counts,
            counts=counts,
        )

    def rows_of(self, picks: IntArray) -> IntArray:
        """Row indices of the picked user codes [P], one user after the other."""
        counts = self.counts[picks]  # [P]
        ends = np.cumsum(counts)
        total = int(ends[-1]) if len(ends) else 0
        place = np.arange(total) - np.repeat(ends - counts, counts)
        rows: IntArray = self.order[np.repeat(self.starts[picks], counts) + place]
        return rows


def resample(user_codes: IntArray, *, rng: np.random.Generator) -> IntArray:
    """As many of ``user_codes`` as there are, drawn with replacement."""
    if len(user_codes) == 0:
        return user_codes
    picks: IntArray = rng.integers(len(user_codes), size=len(user_codes))
    drawn: IntArray = user_codes[picks]
    return drawn
