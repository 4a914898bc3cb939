"""Group-sequential tests: a few looks planned ahead, and the chance of error shared among them.

Narrower than a confidence sequence, in return for a plan: how much information there will be.

Shapes: ``K`` looks, ``Q`` points of an integral.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

from ranker.experiment.effect import FloatArray, require_share
from ranker.experiment.sequential import ConfidenceSequence, IntArray, check_looks

# A look that may spend less than this, which rounding would drown, doesn't stop the experiment.
_LEAST_SPENT = 1e-14
# Nor does one with less new information than this: its integral would take too many points.
_LEAST_NEW = 1e-3
_REACH = 9.0  # standard deviations beyond which a density is nothing
# A Gauss–Legendre rule over panels as wide as this many standard deviations of the increment.
_PANEL_SDS = 3.0
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(14)


def obrien_fleming_spending(fractions: FloatArray, *, alpha: float) -> FloatArray:
    """Chance of error spent by each share of the planned information, 4 − 4Φ(z/√t), [K].

    z is the 1 − α/4 quantile of the normal: the O'Brien–Fleming type of Lan & DeMets (1983) on each
    side. Early looks need extreme results and the last one hardly pays for them: the usual choice.

    Raises:
        ValueError: a fraction outside [0, 1], or ``alpha`` outside (0, 1).
    """
    _check_spending(fractions, alpha=alpha)
    with np.errstate(divide="ignore"):  # nothing is spent at 0
        spent: FloatArray = 4 * norm.sf(norm.isf(alpha / 4) / np.sqrt(fractions))
    return spent


def pocock_spending(fractions: FloatArray, *, alpha: float) -> FloatArray:
    """Chance of error spent by each share of the planned information, α·ln(1 + (e − 1)t), [K].

    The Pocock type of Lan & DeMets (1983): about equal bounds at all looks, so that large effects
    are found early, and the last look pays for it.

    Raises:
        ValueError: a fraction outside [0, 1], or ``alpha`` outside (0, 1).
    """
    _check_spending(fractions, alpha=alpha)
    spent: FloatArray = alpha * np.log1p((math.e - 1) * fractions)
    return spent


def information_fractions(standard_errors: FloatArray, *, planned_se: float) -> FloatArray:
    """Share of the planned information at each look, (planned/actual standard error)² up to 1, [K].

    An outlier may raise a standard error: the share then stays what it was. So it does, from 0, at
    a look without one (NaN).

    Raises:
        ValueError: ``planned_se`` not above 0.
    """
    if not 0 < planned_se < math.inf:
        raise ValueError(f"planned_se must be finite and above 0, got {planned_se}")
    reached = np.nan_to_num((planned_se / standard_errors) ** 2, nan=0.0)
    fractions: FloatArray = np.minimum(np.maximum.accumulate(reached), 1.0)
    return fractions


def group_sequential_bounds(fractions: FloatArray, *, spent: FloatArray) -> FloatArray:
    """Bounds on |estimate / standard error|: beyond the one of its look, the difference isn't 0.

    Without a difference the bound of look k, and none before, is passed with the chance that is
    newly spent there: found by carrying the density of the running sum from look to look by
    numerical integration (Armitage, McPherson & Rowe 1969). The bound is ∞ where nothing is spent:
    at the very beginning, at a look that brings nothing new (less than a thousandth of the plan),
    after all of the plan's information is in.

    Args:
        fractions: of the planned information, not decreasing, in [0, 1], [K].
        spent: cumulative chance of error, from a spending function, [K].

    Raises:
        ValueError: different lengths, fractions that decrease, or spending that falls.
    """
    _check_bounds(fractions, spent=spent)
    bounds = np.full(len(fractions), math.inf)
    used = _looks_with_news(fractions)
    sds = np.sqrt(np.diff(fractions[used], prepend=0.0)).tolist()
    density, spent_until = _Density.at_the_start(), 0.0
    # Points have to lie densely enough for the increment before them and for the one after.
    for k, sd, next_sd in zip(used, sds, [*sds[1:], math.inf], strict=False):
        root = math.sqrt(fractions[k])
        end = _REACH * root
        to_spend = float(spent[k]) - spent_until
        if to_spend > _LEAST_SPENT:
            end = density.end_passed_with(to_spend, sd=sd, at_most=end)
            bounds[k] = end / root
            spent_until = float(spent[k])
        density = density.carried(sd=sd, end=end, panel_width=_PANEL_SDS * min(sd, next_sd))
    return bounds


def group_sequential_sequence(
    *,
    looks: IntArray,
    estimates: FloatArray,
    standard_errors: FloatArray,
    bounds: FloatArray,
) -> ConfidenceSequence:
    """Repeated confidence intervals, estimate ± bound·(standard error) (Jennison & Turnbull 1989).

    They hold at all planned looks together, for estimates such as those of
    `ranker.experiment.sequential.asymptotic_sequence`.

    Raises:
        ValueError: different lengths, looks not increasing, an infinite estimate, or a standard
            error that isn't above 0.
    """
    check_looks(looks=looks, estimates=estimates, standard_errors=standard_errors)
    if len(bounds) != len(looks):
        raise ValueError(f"sequence: expected {len(looks)} bounds, got {len(bounds)}")
    return ConfidenceSequence(
        method="group-sequential",
        looks=looks,
        estimate=estimates,
        low=estimates - bounds * standard_errors,
        high=estimates + bounds * standard_errors,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Density:
    """Of the running sum, where no bound has been passed yet.

    Attributes:
        points: of the rule over the region, [Q].
        masses: density × weight of the rule, [Q]; they sum to the chance of being here.
    """

    points: FloatArray
    masses: FloatArray

    @classmethod
    def at_the_start(cls) -> Self:
        return cls(points=np.zeros(1), masses=np.ones(1))

    def end_passed_with(self, chance: float, *, sd: float, at_most: float) -> float:
        """The end ±e that the next sum, an increment of ``sd`` later, passes with ``chance``."""

        def missing(end: float) -> float:
            beyond = norm.sf((end - self.points) / sd) + norm.sf((end + self.points) / sd)
            return chance - float(self.masses @ beyond)

        return float(brentq(missing, 0.0, at_most, xtol=1e-12))

    def carried(self, *, sd: float, end: float, panel_width: float) -> _Density:
        """An increment of ``sd`` later, between ±``end``, on panels of at most ``panel_width``."""
        num_panels = math.ceil(2 * end / panel_width)
        half = end / num_panels
        middles = -end + half * (2 * np.arange(num_panels) + 1)
        points = (middles[:, None] + half * _NODES).ravel()
        weights = half * np.tile(_WEIGHTS, num_panels)
        steps = (points[:, None] - self.points) / sd
        density = np.exp(-0.5 * steps**2) @ self.masses / (sd * math.sqrt(2 * math.pi))
        return _Density(points=points, masses=density * weights)


def _looks_with_news(fractions: FloatArray) -> list[int]:
    used, until = [], 0.0
    for k, fraction in enumerate(fractions.tolist()):
        if fraction - until >= _LEAST_NEW:
            used.append(k)
            until = fraction
    return used


def _check_spending(fractions: FloatArray, *, alpha: float) -> None:
    require_share(alpha, name="alpha")
    if not ((fractions >= 0) & (fractions <= 1)).all():
        raise ValueError(
            f"spending: fractions of the planned information must be in [0, 1], got "
            f"{fractions.tolist()}"
        )


def _check_bounds(fractions: FloatArray, *, spent: FloatArray) -> None:
    if len(fractions) != len(spent):
        raise ValueError(
            f"group-sequential: expected as many fractions as spent, got {len(fractions)} and "
            f"{len(spent)}"
        )
    if not ((np.diff(fractions, prepend=0.0) >= 0).all() and (fractions <= 1).all()):
        raise ValueError(
            f"group-sequential: fractions must be in [0, 1] and not decrease, got "
            f"{fractions.tolist()}"
        )
    if not ((np.diff(spent, prepend=0.0) >= 0).all() and (spent < 1).all()):
        raise ValueError(
            f"group-sequential: what is spent must not decrease and stay below 1, got "
            f"{spent.tolist()}"
        )
