"""Where a prediction stands within its request: a number in [0, 1] without a unit.

Shapes: ``N`` candidates.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]


def normalised_ranks(values: npt.NDArray[np.floating], requests: IntArray) -> Float64Array:
    """Mean normalised rank of each value within its request [N].

    Of n candidates the smallest has 0, the largest 1, and (r - 1) / (n - 1) those between, r being
    the rank by rising value. Ties share the mean of their ranks. A candidate that is alone, like
    candidates that all tie, has 1/2.

    Args:
        values: finite, [N].
        requests: codes [N] of the requests, in any order.
    """
    num_rows = len(values)
    order = np.lexsort((values, requests))
    request, value = requests[order], values[order]
    new_request = np.ones(num_rows, dtype=bool)
    new_request[1:] = request[1:] != request[:-1]
    new_value = new_request.copy()
    new_value[1:] |= value[1:] != value[:-1]
    request_start, request_size = _spans(new_request)
    tie_start, tie_size = _spans(new_value)
    rank = tie_start - request_start + (tie_size - 1) / 2  # 0-based, mean over ties
    alone = request_size == 1
    ranks = np.empty(num_rows)
    ranks[order] = np.where(alone, 0.5, rank / np.where(alone, 1, request_size - 1))
    return ranks


def _spans(is_first: npt.NDArray[np.bool_]) -> tuple[IntArray, IntArray]:
    """Start and size [N] of the span each row is in."""
    starts = np.flatnonzero(is_first)
    sizes = np.diff(starts, append=len(is_first))
    return np.repeat(starts, sizes), np.repeat(sizes, sizes)
