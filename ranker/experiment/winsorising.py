"""Winsorising: a few extreme users are pulled in before means are compared.

Shapes: ``N`` users.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ranker.experiment.effect import FloatArray
from ranker.experiment.moments import require_finite


@dataclass(frozen=True, slots=True, kw_only=True)
class WinsorLimits:
    """Between what values are kept; values beyond become the limit."""

    low: float
    high: float

    def apply(self, values: FloatArray) -> FloatArray:
        """``values`` [N] pulled in; NaN stays NaN."""
        pulled: FloatArray = np.clip(values, self.low, self.high)
        return pulled


def winsor_limits(values: FloatArray, *, quantile: float) -> WinsorLimits:
    """Limits for a metric, from the users of *both* arms pooled, NaN = not observed, [N].

    The rule: the ``quantile`` of all observed values above, and the 1 − ``quantile`` below, both an
    observed value (the next one outwards). One pair of limits for both arms, or a treatment that
    only moves its heaviest users would be cut by its own limit. The estimate is then of the
    winsorised mean, less noisy and smaller. Where the limits would coincide (a rare event: nearly
    everyone has 0) they are the lowest and highest value: nothing is pulled in.

    Raises:
        ValueError: ``quantile`` outside [0.5, 1), or an infinite value.
    """
    if not 0.5 <= quantile < 1:
        raise ValueError(f"winsorise: quantile must be in [0.5, 1), got {quantile}")
    observed = values[~np.isnan(values)]
    require_finite(observed, name="winsorise")
    if len(observed) == 0:
        return WinsorLimits(low=0.0, high=0.0)
    low = float(np.quantile(observed, 1 - quantile, method="lower"))
    high = float(np.quantile(observed, quantile, method="higher"))
    if low == high:
        low, high = float(observed.min()), float(observed.max())
    return WinsorLimits(low=low, high=high)
