"""Confidence sequences: intervals that hold at every look at once, so that peeking is safe.

Shapes: ``K`` looks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import lambertw

from ranker.experiment.effect import FloatArray, require_share

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ConfidenceSequence:
    """A quantity as it was seen at each look.

    With the chance asked for, the truth lies between ``low`` and ``high`` at all looks together.

    Attributes:
        method: how it was made.
        looks: number of a day, or of users so far, increasing, [K].
        estimate, low, high: NaN at a look that had no estimate yet, [K].
    """

    method: str
    looks: IntArray
    estimate: FloatArray
    low: FloatArray
    high: FloatArray

    def first_look_without(self, value: float) -> int | None:
        """The first of ``looks`` whose interval doesn't contain ``value``; None if all do."""
        without = (self.low > value) | (self.high < value)  # NaN says nothing
        return int(self.looks[np.argmax(without)]) if without.any() else None


def asymptotic_sequence(
    *,
    looks: IntArray,
    estimates: FloatArray,
    standard_errors: FloatArray,
    tightest_at_se: float,
    confidence: float,
) -> ConfidenceSequence:
    """Confidence sequence of anything that comes with a standard error: Robbins' normal mixture.

    At a look with standard error s the interval is estimate ± s·√((1 + 1/x)·ln((1 + x)/α²)), with
    α = 1 − ``confidence`` and x = x*·(``tightest_at_se``/s)²: x is tρ² of Waudby-Smith, Arbour,
    Sinha, Kennedy & Ramdas (Annals of Statistics 2024, thm 2.2), with 1/s² as the clock t, so that
    looks may come at any time. x* = −1 − W₋₁(−α²/e) makes the interval narrowest, for its s, where
    s = ``tightest_at_se``; it is never narrower than that of a single look.

    It holds as the number of users grows (at 20 looks spread over the experiment from about a
    hundred users an arm on; for fewer see `ranker.experiment.betting`), for estimates that move
    from look to look as running means do: cov(early, late) = var(late). Means and ratios over
    users who arrive do, and so does a mean *per day* over users who stay; a sum by user that grows
    with the days doesn't, but its relative lift does: give lifts and their standard errors.

    Args:
        looks: labels, increasing, [K].
        estimates: from all data up to each look; NaN = none yet, [K].
        standard_errors: of ``estimates``; NaN = none yet, [K].
        tightest_at_se: set before the experiment, as what the planned users would give, or the last
            look's: standard errors don't tell which arm wins.
        confidence: of the whole sequence, in (0, 1).

    Raises:
        ValueError: different lengths, looks not increasing, an infinite entry, a standard error
            that isn't above 0, or ``confidence`` outside (0, 1).
    """
    check_looks(looks=looks, estimates=estimates, standard_errors=standard_errors)
    require_share(confidence, name="confidence")
    if not 0 < tightest_at_se < math.inf:
        raise ValueError(f"tightest_at_se must be finite and above 0, got {tightest_at_se}")
    alpha = 1 - confidence
    optimum = -1 - float(lambertw(-(alpha**2) / math.e, k=-1).real)
    x = optimum * (tightest_at_se / standard_errors) ** 2  # [K]
    margin = standard_errors * np.sqrt((1 + 1 / x) * (np.log1p(x) - 2 * math.log(alpha)))
    return ConfidenceSequence(
        method="asymptotic confidence sequence",
        looks=looks,
        estimate=estimates,
        low=estimates - margin,
        high=estimates + margin,
    )


def check_looks(*, looks: IntArray, estimates: FloatArray, standard_errors: FloatArray) -> None:
    """Raise a ValueError unless there is one estimate with one standard error > 0 for each look.

    NaN, in either, is a look without an estimate.
    """
    if not len(looks) == len(estimates) == len(standard_errors):
        raise ValueError(
            f"sequence: expected one estimate and standard error a look, got {len(looks)} looks, "
            f"{len(estimates)} estimates and {len(standard_errors)} standard errors"
        )
    if (np.diff(looks) <= 0).any():
        raise ValueError(f"sequence: looks must increase, got {looks.tolist()}; sort them")
    if np.isinf(estimates).any() or np.isinf(standard_errors).any():
        raise ValueError("sequence: expected finite estimates and standard errors, or NaN for none")
    if (standard_errors <= 0).any():
        place = int(np.argmax(standard_errors <= 0))
        raise ValueError(
            f"sequence: standard errors must be above 0, got {standard_errors[place]} at look "
            f"{looks[place]}; NaN stands for a look at which nothing varied"
        )
