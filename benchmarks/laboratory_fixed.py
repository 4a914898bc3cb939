"""Experiments looked at once, with and without a difference."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from laboratory_runs import CONFIDENCE, FloatArray
from laboratory_users import MEAN_SECONDS, MEAN_TASTE_S, Arm, draw_arm
from scipy import stats

from ranker.experiment.assignment import assign_arms, check_arm_counts
from ranker.experiment.covariates import (
    CovariateSample,
    RatioCovariateSample,
    cuped_effect,
    cuped_ratio_effect,
)
from ranker.experiment.effect import Effect
from ranker.experiment.interleaving import interleave_by_team_draft, preference
from ranker.experiment.means import mean_effect
from ranker.experiment.moments import moments
from ranker.experiment.power import Baseline, power_of_lift
from ranker.experiment.quantiles import QuantileSample, quantile_effect
from ranker.experiment.ratios import Quantity, RatioSample, ratio_effect

METHODS = ("mean", "ratio", "cuped_mean", "cuped_ratio", "median", "quantile_90")
# The difference that a lift makes, for methods whose control value is known exactly.
VALUES = {
    "mean": MEAN_SECONDS,
    "ratio": MEAN_TASTE_S,
    "cuped_mean": MEAN_SECONDS,
    "cuped_ratio": MEAN_TASTE_S,
}
_SECONDS, _PAST = Quantity(numerator="seconds"), Quantity(numerator="past_seconds")
_RATIO = Quantity(numerator="seconds", denominator="visits")
_PAST_RATIO = Quantity(numerator="past_seconds", denominator="past_visits")
_SHARES = {"control": 0.5, "first": 0.3, "second": 0.2}


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedHorizon:
    """One experiment with ``num_users`` an arm: every method's p-value and what it covered."""

    num_users: int
    lift: float

    def __call__(self, rng: np.random.Generator) -> Mapping[str, float]:
        control = draw_arm(self.num_users, lift=0.0, rng=rng)
        treatment = draw_arm(self.num_users, lift=self.lift, rng=rng)
        outcomes = {"p_naive_ratio": naive_ratio_p_value(control, treatment)}
        for name, effect in effects(control, treatment).items():
            outcomes[f"p_{name}"] = effect.p_value
            outcomes[f"difference_{name}"] = effect.difference
            outcomes[f"covers_lift_{name}"] = float(
                effect.lift is not None and effect.lift_ci_low <= self.lift <= effect.lift_ci_high
            )
            if name in VALUES:
                truth = VALUES[name] * self.lift
                outcomes[f"covers_difference_{name}"] = float(
                    effect.difference_ci_low <= truth <= effect.difference_ci_high
                )
        return outcomes


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRatio:
    """Users with random ids, assigned to three arms by the salted hash and counted."""

    num_users: int

    def __call__(self, rng: np.random.Generator) -> Mapping[str, float]:
        users = rng.choice(2**62, size=self.num_users)
        arms = assign_arms(users, salt=f"salt {rng.integers(2**62)}", share_by_arm=_SHARES)
        counts = {arm: int(np.count_nonzero(arms == arm)) for arm in _SHARES}
        return {"p": check_arm_counts(counts, share_by_arm=_SHARES).p_value}


@dataclass(frozen=True, slots=True, kw_only=True)
class Interleaving:
    """Two rankings as good as each other, interleaved; users click more at the top."""

    num_users: int

    def __call__(self, rng: np.random.Generator) -> Mapping[str, float]:
        num_candidates, slate_size = 12, 5
        users = np.repeat(np.arange(self.num_users), rng.integers(1, 6, size=self.num_users))
        shape = (len(users), num_candidates)
        relevance = rng.beta(1, 4, size=shape)
        control, treatment = (
            np.argsort(np.argsort(relevance + rng.normal(scale=0.2, size=shape))) for _ in range(2)
        )
        shown = interleave_by_team_draft(
            np.repeat(np.arange(len(users)), num_candidates),
            control_ranks=num_candidates - control.ravel(),
            treatment_ranks=num_candidates - treatment.ravel(),
            slate_size=slate_size,
            rng=rng,
        )
        clicks = rng.random(len(shown.ranks)) < relevance.ravel()[shown.candidates] / shown.ranks
        verdict = preference(
            user_codes=users[shown.candidates // num_candidates],
            by_treatment=shown.by_treatment,
            credits=clicks.astype(np.float64),
            confidence=CONFIDENCE,
        )
        return {"p": verdict.p_value}


@dataclass(frozen=True, slots=True, kw_only=True)
class CupedVariance:
    """What is left of the squared standard error under CUPED, at ``num_users`` in all."""

    num_users: int

    def __call__(self, rng: np.random.Generator) -> Mapping[str, float]:
        control, treatment = (draw_arm(self.num_users // 2, lift=0.0, rng=rng) for _ in range(2))
        plain = mean_effect(control.seconds, treatment.seconds, confidence=CONFIDENCE)
        adjusted = _cuped_mean(control, treatment)
        return {"ratio": (adjusted.difference_se / plain.difference_se) ** 2}


def effects(control: Arm, treatment: Arm) -> dict[str, Effect]:
    """By method."""
    rows = [
        QuantileSample(values=a.row_seconds, user_codes=a.row_users) for a in (control, treatment)
    ]
    return {
        "mean": mean_effect(control.seconds, treatment.seconds, confidence=CONFIDENCE),
        "ratio": ratio_effect(
            *(RatioSample(numerator=a.seconds, denominator=a.visits) for a in (control, treatment)),
            confidence=CONFIDENCE,
        ),
        "cuped_mean": _cuped_mean(control, treatment),
        "cuped_ratio": cuped_ratio_effect(
            *(
                RatioCovariateSample(
                    numerator=a.seconds,
                    denominator=a.visits,
                    covariate_numerator=a.past_seconds,
                    covariate_denominator=a.past_visits,
                )
                for a in (control, treatment)
            ),
            confidence=CONFIDENCE,
        ),
        "median": quantile_effect(*rows, quantile=0.5, confidence=CONFIDENCE),
        "quantile_90": quantile_effect(*rows, quantile=0.9, confidence=CONFIDENCE),
    }


def naive_ratio_p_value(control: Arm, treatment: Arm) -> float:
    """Rows as if they were independent: what the delta method is there to avoid."""
    return float(stats.ttest_ind(control.row_seconds, treatment.row_seconds).pvalue)


def analytic_power(lift: float, *, num_users: int, users: Arm) -> dict[str, float]:
    """By method, from the moments of many ``users`` without a treatment."""
    of_users = moments(
        {
            "seconds": users.seconds,
            "visits": users.visits,
            "past_seconds": users.past_seconds,
            "past_visits": users.past_visits,
        }
    )
    baselines = {
        "mean": Baseline.of_moments(of_users, quantity=_SECONDS),
        "ratio": Baseline.of_moments(of_users, quantity=_RATIO),
        "cuped_mean": Baseline.of_moments(of_users, quantity=_SECONDS, covariates=[_PAST]),
        "cuped_ratio": Baseline.of_moments(of_users, quantity=_RATIO, covariates=[_PAST_RATIO]),
    }
    return {
        name: power_of_lift(
            baseline,
            lift=lift,
            num_users_control=num_users,
            num_users_treatment=num_users,
            confidence=CONFIDENCE,
        )
        for name, baseline in baselines.items()
    }


def variance_left(outcomes: Mapping[str, FloatArray]) -> float:
    """Variance of CUPED's differences between experiments, in units of the plain ones'."""
    return math.pow(
        np.std(outcomes["difference_cuped_mean"]) / np.std(outcomes["difference_mean"]), 2
    )


def _cuped_mean(control: Arm, treatment: Arm) -> Effect:
    return cuped_effect(
        *(
            CovariateSample(outcome=a.seconds, covariate=a.past_seconds)
            for a in (control, treatment)
        ),
        confidence=CONFIDENCE,
    )
