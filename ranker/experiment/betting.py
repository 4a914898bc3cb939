"""Betting confidence sequences: for bounded outcomes, exact at any number of users.

A gambler who bets against a candidate mean can't expect to gain if it is the true one. Candidates
against which he has gained much are out.

Shapes: ``N`` values in order of arrival, ``K`` looks, ``S`` values up to a look.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq

from ranker.experiment.effect import FloatArray, require_share
from ranker.experiment.sequential import ConfidenceSequence, IntArray

# Share of the capital that a bet may lose (c of Waudby-Smith & Ramdas, eq. 24).
_MOST_AT_STAKE = 0.5
_TOLERANCE = 1e-12  # of a mean in [0, 1]


def betting_sequence(
    values: FloatArray, *, looks: IntArray, lowest: float, highest: float, confidence: float
) -> ConfidenceSequence:
    """Confidence sequence of the mean of ``values``, which lie between two known bounds.

    The hedged capital of Waudby-Smith & Ramdas (JRSS-B 2024, thm 3): of values scaled to [0, 1],
    half of it bets that the mean is above m, half that it is below; m is out when either has
    become 2/α times what it was. Bets are their predictable plug-in (eq. 26): from the past's
    variance alone, λ_t = √(2·ln(2/α) / (σ̂²_{t−1}·t·ln(t + 1))), at most half of what could be lost.
    The chance that any look misses the mean is at most α = 1 − ``confidence`` for *every*
    distribution, however few values; it only takes that each has the same mean given those before.

    Args:
        values: in order of arrival, each of them final, [N].
        looks: how many values had arrived, increasing, from 1 to N, [K].
        lowest, highest: bounds of every value, known beforehand.
        confidence: of the whole sequence, in (0, 1).

    Raises:
        ValueError: a value missing or beyond its bounds, looks that aren't increasing numbers from
            1 to N, or ``confidence`` outside (0, 1).
    """
    require_share(confidence, name="confidence")
    _check_values(values, lowest=lowest, highest=highest)
    _check_looks(looks, num_values=len(values))
    scaled = (values - lowest) / (highest - lowest)
    bets = _plug_in_bets(scaled, alpha=1 - confidence)
    lows = [
        _lowest_mean_left(scaled[:look], bets=bets[:look], alpha=1 - confidence)
        for look in looks.tolist()
    ]
    highs = [
        1 - _lowest_mean_left(1 - scaled[:look], bets=bets[:look], alpha=1 - confidence)
        for look in looks.tolist()
    ]
    return ConfidenceSequence(
        method="betting confidence sequence",
        looks=looks,
        estimate=np.cumsum(values)[looks - 1] / looks,
        low=lowest + (highest - lowest) * np.array(lows),
        high=lowest + (highest - lowest) * np.array(highs),
    )


def betting_difference_sequence(
    control: FloatArray,
    treatment: FloatArray,
    *,
    looks: IntArray,
    lowest: float,
    highest: float,
    confidence: float,
) -> ConfidenceSequence:
    """Confidence sequence of mean(treatment) − mean(control), for bounded outcomes.

    The n-th user of treatment is paired with the n-th of control; a pair's difference lies between
    ±(``highest`` − ``lowest``), its mean is the difference of means, and `betting_sequence` does
    the rest: exact for any number of pairs. Users of the larger arm who find no partner wait.

    Args:
        control, treatment: one final value a user, in order of arrival.
        looks: how many pairs were complete, increasing.
        lowest, highest: bounds of every value, known beforehand.
        confidence: of the whole sequence, in (0, 1).

    Raises:
        ValueError: as `betting_sequence`.
    """
    _check_values(control, lowest=lowest, highest=highest)
    _check_values(treatment, lowest=lowest, highest=highest)
    num_pairs = min(len(control), len(treatment))
    spread = highest - lowest
    return betting_sequence(
        treatment[:num_pairs] - control[:num_pairs],
        looks=looks,
        lowest=-spread,
        highest=spread,
        confidence=confidence,
    )


def _plug_in_bets(scaled: FloatArray, *, alpha: float) -> FloatArray:
    """λ_t for each of ``scaled`` in [0, 1], from those before it, [N]."""
    counts = np.arange(1, len(scaled) + 1)
    means = (0.5 + np.cumsum(scaled)) / (counts + 1)
    variances = (0.25 + np.cumsum((scaled - means) ** 2)) / (counts + 1)
    before = np.concatenate([[0.25], variances[:-1]])
    bets: FloatArray = np.sqrt(2 * math.log(2 / alpha) / (before * counts * np.log1p(counts)))
    return bets


def _lowest_mean_left(scaled: FloatArray, *, bets: FloatArray, alpha: float) -> float:
    """The smallest m that a gambler on larger means hasn't ruled out; ``scaled``, ``bets`` [S]."""

    def log_capital(mean: float) -> float:
        stakes = np.minimum(bets, _MOST_AT_STAKE / mean)
        return float(np.log1p(stakes * (scaled - mean)).sum())

    return _where_it_falls_to(math.log(2 / alpha), log_capital)


def _where_it_falls_to(level: float, falling: Callable[[float], float]) -> float:
    """Where in [0, 1] a falling function passes ``level``; 0 where it begins below."""
    # Every factor of the capital falls with m, so that one root tells all that is ruled out.
    if falling(_TOLERANCE) <= level:
        return 0.0
    if falling(1.0) > level:  # only if every value is 1
        return 1.0
    root = brentq(lambda mean: falling(mean) - level, _TOLERANCE, 1.0, xtol=_TOLERANCE)
    return max(0.0, float(root) - 4 * _TOLERANCE)  # outwards: rounding excludes nothing


def _check_values(values: FloatArray, *, lowest: float, highest: float) -> None:
    if not (math.isfinite(lowest) and math.isfinite(highest) and lowest < highest):
        raise ValueError(
            f"betting: expected finite bounds lowest < highest, got {lowest}, {highest}"
        )
    bad = ~((values >= lowest) & (values <= highest))  # NaN too
    if bad.any():
        place = int(np.argmax(bad))
        raise ValueError(
            f"betting: values must lie in [{lowest:g}, {highest:g}], got {values[place]} at entry "
            f"{place} ({np.count_nonzero(bad)} such); bounds must be known beforehand: cut values "
            "there, or use the asymptotic sequence"
        )


def _check_looks(looks: IntArray, *, num_values: int) -> None:
    if len(looks) and not (
        looks[0] >= 1 and looks[-1] <= num_values and (np.diff(looks) > 0).all()
    ):
        raise ValueError(
            f"betting: looks must increase from 1 to {num_values} values or pairs, got "
            f"{looks.tolist()}"
        )
