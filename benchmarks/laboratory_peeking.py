"""Experiments without a difference, looked at twenty times.

Users arrive in order (mean, CUPED, betting, group-sequential), or are all there from the first day
and come back (sums by user, seconds per visit).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from laboratory_runs import CONFIDENCE, FloatArray
from laboratory_users import draw_arm, draw_days

from ranker.experiment.betting import betting_difference_sequence
from ranker.experiment.covariates import CovariateSample, cuped_effect
from ranker.experiment.effect import Effect
from ranker.experiment.group_sequential import (
    group_sequential_bounds,
    group_sequential_sequence,
    obrien_fleming_spending,
    pocock_spending,
)
from ranker.experiment.means import mean_effect
from ranker.experiment.ratios import RatioSample, ratio_effect
from ranker.experiment.sequential import ConfidenceSequence, asymptotic_sequence

NUM_LOOKS = 20
ARRIVING = ("mean", "cuped_mean")
SEQUENCES = (*ARRIVING, "lift_of_sums", "ratio", "betting")
_LOOKS = np.arange(1, NUM_LOOKS + 1)
_BOUNDS = {
    name: group_sequential_bounds(
        _LOOKS / NUM_LOOKS, spent=spending(_LOOKS / NUM_LOOKS, alpha=1 - CONFIDENCE)
    )
    for name, spending in (("obrien_fleming", obrien_fleming_spending), ("pocock", pocock_spending))
}
GROUP_SEQUENTIAL = tuple(_BOUNDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peeking:
    """One A/A experiment: by method, whether some look found a difference."""

    num_users: int  # an arm; as many at each look

    def __call__(self, rng: np.random.Generator) -> Mapping[str, float]:
        outcomes: dict[str, float] = {}
        arriving = self._arriving(rng)
        for name, by_look in {**arriving, **self._staying(rng)}.items():
            outcomes[f"naive_{name}"] = float(any(one.p_value < 1 - CONFIDENCE for one in by_look))
            outcomes[f"sequence_{name}"] = found(
                _sequence(by_look, relative=name == "lift_of_sums")
            )
        outcomes |= {
            f"group_{name}": found(_group_sequence(arriving["mean"], bounds=bounds))
            for name, bounds in _BOUNDS.items()
        }
        clicks = [(rng.random(self.num_users) < 0.1).astype(np.float64) for _ in range(2)]
        outcomes["sequence_betting"] = found(
            betting_difference_sequence(
                *clicks,
                looks=_LOOKS * (self.num_users // NUM_LOOKS),
                lowest=0.0,
                highest=1.0,
                confidence=CONFIDENCE,
            )
        )
        return outcomes

    def _arriving(self, rng: np.random.Generator) -> dict[str, list[Effect]]:
        control, treatment = (draw_arm(self.num_users, lift=0.0, rng=rng) for _ in range(2))

        def cuped(until: int) -> Effect:
            return cuped_effect(
                *(
                    CovariateSample(outcome=a.seconds[:until], covariate=a.past_seconds[:until])
                    for a in (control, treatment)
                ),
                confidence=CONFIDENCE,
            )

        def mean(until: int) -> Effect:
            return mean_effect(
                control.seconds[:until], treatment.seconds[:until], confidence=CONFIDENCE
            )

        until = (_LOOKS * (self.num_users // NUM_LOOKS)).tolist()
        return {
            "mean": [mean(num_users) for num_users in until],
            "cuped_mean": [cuped(num_users) for num_users in until],
        }

    def _staying(self, rng: np.random.Generator) -> dict[str, list[Effect]]:
        control, treatment = (
            draw_days(self.num_users, num_days=NUM_LOOKS, rng=rng) for _ in range(2)
        )
        seconds = [np.cumsum(arm.seconds, axis=1).T.copy() for arm in (control, treatment)]
        visits = [np.cumsum(arm.visits, axis=1).T.copy() for arm in (control, treatment)]
        return {
            "lift_of_sums": _by_day(
                lambda day: mean_effect(seconds[0][day], seconds[1][day], confidence=CONFIDENCE)
            ),
            "ratio": _by_day(
                lambda day: ratio_effect(
                    *(
                        RatioSample(numerator=y[day], denominator=x[day])
                        for y, x in zip(seconds, visits, strict=True)
                    ),
                    confidence=CONFIDENCE,
                )
            ),
        }


def found(sequence: ConfidenceSequence) -> float:
    """1 if a look's interval leaves out 0."""
    return float(sequence.first_look_without(0.0) is not None)


def _by_day(effect_of: Callable[[int], Effect]) -> list[Effect]:
    return [effect_of(day) for day in range(NUM_LOOKS)]


def _sequence(effects: Sequence[Effect], *, relative: bool) -> ConfidenceSequence:
    estimates = _column([one.lift if relative else one.difference for one in effects])
    standard_errors = _column([one.lift_se if relative else one.difference_se for one in effects])
    return asymptotic_sequence(
        looks=_LOOKS,
        estimates=estimates,
        standard_errors=standard_errors,
        tightest_at_se=float(standard_errors[-1]),
        confidence=CONFIDENCE,
    )


def _group_sequence(effects: Sequence[Effect], *, bounds: FloatArray) -> ConfidenceSequence:
    return group_sequential_sequence(
        looks=_LOOKS,
        estimates=_column([one.difference for one in effects]),
        standard_errors=_column([one.difference_se for one in effects]),
        bounds=bounds,
    )


def _column(values: Sequence[float | None]) -> FloatArray:
    return np.array([np.nan if value is None else value for value in values])
