"""P(item at a rank, given those above it), from what could still be shown at that rank.

`N` candidates sorted by request, `M` shown rows, `R` requests, `K` ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Admissible:
    """Which candidates could have been shown at which rank.

    Attributes:
        request: number of each candidate's request, 0 .. R - 1, ascending, [N].
        last: the last rank at which it could have been, 1 .. K, see `last_ranks`, [N].
        shown: the rows of the slates, [M].
        rank: of each, [M].
    """

    request: IntArray
    last: IntArray
    shown: IntArray
    rank: npt.NDArray[np.int32]

    @property
    def size(self) -> int:
        """K."""
        return int(self.last.max(initial=1))

    @property
    def num_requests(self) -> int:
        """R."""
        return int(self.request[-1]) + 1 if len(self.request) else 0

    def cells(self) -> IntArray:
        """The candidates by request and last rank, as one number each, [N]."""
        return self.request * self.size + self.last - 1

    def at_shown(self, values: FloatArray) -> FloatArray:
        """Of ``values`` [R, K] those of the shown rows' ranks, [M]."""
        return values[self.request[self.shown], self.rank - 1]


def plackett_luce_propensities(
    logit: FloatArray, admissible: Admissible, *, temperature: float
) -> FloatArray:
    """exp(l_i / T) / sum_j exp(l_j / T), j over what could be shown at that rank: [M].

    Summed from the last rank up, relative to each rank's own largest logit: what is left at a low
    rank may be many orders of magnitude below the top.

    Args:
        logit: finite, [N].
        admissible: what could be shown.
        temperature: T > 0.
    """
    scaled = logit / temperature
    cells = admissible.cells()
    num_cells = admissible.num_requests * admissible.size
    largest = np.full(num_cells, -np.inf)
    np.maximum.at(largest, cells, scaled)
    sums = np.bincount(cells, weights=np.exp(scaled - largest[cells]), minlength=num_cells)
    with np.errstate(divide="ignore"):
        log_sums = np.log(sums) + np.where(sums > 0, largest, 0.0)  # -inf where a cell is empty
    by_rank = log_sums.reshape(admissible.num_requests, admissible.size)
    left = np.logaddexp.accumulate(by_rank[:, ::-1], axis=1)[:, ::-1]
    return np.exp(scaled[admissible.shown] - admissible.at_shown(left))


def mixed_propensities(is_best: Mask, admissible: Admissible, *, epsilon: float) -> FloatArray:
    """(1 - ε) [i is the best of what is left] + ε / (number of what is left): [M].

    Args:
        is_best: whether a shown row was the best that could be shown at its rank, [M].
        admissible: what could be shown.
        epsilon: ε.
    """
    num_cells = admissible.num_requests * admissible.size
    counts = np.bincount(admissible.cells(), minlength=num_cells).astype(np.float64)
    by_rank = counts.reshape(admissible.num_requests, admissible.size)
    left = np.cumsum(by_rank[:, ::-1], axis=1)[:, ::-1]
    return (1 - epsilon) * is_best + epsilon / admissible.at_shown(left)
