"""Many metrics, many slices: p-values adjusted for how many were looked at.

Shapes: ``M`` tests, of which NaN are not counted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ranker.experiment.effect import FloatArray


def holm(p_values: FloatArray) -> FloatArray:
    """Adjusted p-values, [M]: acting on those up to α has at most chance α of any false alarm.

    The i-th smallest is multiplied by M − i + 1, then made non-decreasing (Holm 1979): for the
    metrics that decide. NaN is a test that wasn't made: it stays NaN and doesn't count in M.

    Raises:
        ValueError: a p-value outside [0, 1].
    """
    order = _order_of_tests(p_values)
    factors = len(order) - np.arange(len(order))
    adjusted = np.full_like(p_values, np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1.0)
    return adjusted


def benjamini_hochberg(p_values: FloatArray) -> FloatArray:
    """Adjusted p-values, [M]: of those up to q, a share of at most q is false on average.

    The i-th smallest is multiplied by M / i, then made non-decreasing from the top (Benjamini &
    Hochberg 1995): for secondary metrics and slices, where tests are independent or positively
    dependent. NaN as in `holm`.

    Raises:
        ValueError: a p-value outside [0, 1].
    """
    order = _order_of_tests(p_values)[::-1]
    factors = len(order) / np.arange(len(order), 0, -1)
    adjusted = np.full_like(p_values, np.nan)
    adjusted[order] = np.minimum(np.minimum.accumulate(p_values[order] * factors), 1.0)
    return adjusted


def _order_of_tests(p_values: FloatArray) -> NDArray[np.int64]:
    """Indices of the tests made, smallest p-value first."""
    made = np.flatnonzero(~np.isnan(p_values))
    if not ((p_values[made] >= 0) & (p_values[made] <= 1)).all():
        raise ValueError("multiplicity: p-values must be in [0, 1], or NaN where there is no test")
    order: NDArray[np.int64] = made[np.argsort(p_values[made], kind="stable")]
    return order
