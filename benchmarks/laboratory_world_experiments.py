"""Experiments in the world: false alarms, coverage of its truth, and what interleaving gains.

A world's users, who don't touch each other here, are cut into blocks: each is an experiment.

Shapes: U users, W worlds, S sizes of experiments, G grid points, B resamples.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from laboratory_runs import CONFIDENCE, FloatArray, Proof, Verdict, share_figure, share_verdict
from laboratory_sizes import SEEDS, Sizes
from laboratory_world_plays import FIRST_DAY, ExperimentSums, TeamClicks, WorldPlay, play_world
from record import Figure
from scipy import stats

from ranker.experiment.covariates import CovariateSample, cuped_effect
from ranker.experiment.effect import Effect
from ranker.experiment.interleaving import preference
from ranker.experiment.means import mean_effect
from ranker.experiment.ratios import RatioSample, ratio_effect

ALPHA = 1 - CONFIDENCE
POWER = 0.8
BLOCK_USERS = 1_024  # of an experiment, both arms
METHODS = ("clicks_per_user", "click_rate", "clicks_per_user_cuped")
# How many users, all in all, the power is measured at.
SIZES = {
    "clicks_per_user": (512, 1_024, 2_048, 4_096, 8_192),
    "clicks_per_user_cuped": (512, 1_024, 2_048, 4_096, 8_192),
    "interleaving": (32, 64, 128, 256, 512),
}
NUM_RESAMPLES = 2_000
_GRID = np.geomspace(8, 1e6, 2_001)  # users needed, [G]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PowerCounts:
    """How often experiments of each size found the better policy.

    Attributes:
        sizes: users, [S].
        found, tried: by world, [W, S].
    """

    sizes: FloatArray
    found: FloatArray
    tried: FloatArray


def prove_experiments(sizes: Sizes, executor: Executor) -> Proof:
    """Estimators keep their promises in the world; interleaving's gain is measured."""
    seeds = [SEEDS["world_experiments"] + number for number in range(sizes.worlds)]
    plays = list(executor.map(play_world, seeds, [sizes.users_world] * len(seeds)))
    proof = Proof(
        figures={},
        details={
            "true_lift_of_clicks_per_user_by_world": [play.click_lift for play in plays],
            "interleaving_measures": "preference by clicks only: neither watch time, nor returns, "
            "nor satisfaction",
        },
    )
    _add_false_alarms(proof, plays)
    _add_coverage(proof, plays)
    _add_gain(proof, plays)
    return proof


def effects_of(sums: ExperimentSums, users: slice) -> dict[str, Effect]:
    """By method, of the experiment on some of the users."""
    clicks, past_clicks = (
        sums.clicks[days, users].sum(axis=0) for days in (slice(FIRST_DAY, None), slice(FIRST_DAY))
    )
    shown = sums.impressions[FIRST_DAY:, users].sum(axis=0)
    treated = sums.in_treatment[users]
    arms = (~treated, treated)
    return {
        "clicks_per_user": mean_effect(*(clicks[arm] for arm in arms), confidence=CONFIDENCE),
        "click_rate": ratio_effect(
            *(RatioSample(numerator=clicks[arm], denominator=shown[arm]) for arm in arms),
            confidence=CONFIDENCE,
        ),
        "clicks_per_user_cuped": cuped_effect(
            *(CovariateSample(outcome=clicks[arm], covariate=past_clicks[arm]) for arm in arms),
            confidence=CONFIDENCE,
        ),
    }


def interleaving_finds(clicks: TeamClicks, users: slice) -> bool:
    """Whether treatment is significantly preferred by some of the users."""
    control, treatment = clicks.control[users], clicks.treatment[users]
    verdict = preference(
        user_codes=np.tile(np.arange(len(control)), 2),
        by_treatment=np.repeat([False, True], len(control)),
        credits=np.concatenate([control, treatment]),
        confidence=CONFIDENCE,
    )
    return verdict.p_value < ALPHA and verdict.share_treatment > 0.5


def count_power(
    plays: Sequence[WorldPlay], sizes: Sequence[int], *, finds: Callable[[WorldPlay, slice], bool]
) -> PowerCounts:
    """Cut each world's users into experiments of each size that fits."""
    found = np.array(
        [
            [sum(finds(play, block) for block in blocks_of(play, size)) for size in sizes]
            for play in plays
        ]
    )
    tried = np.array([[len(list(blocks_of(play, size))) for size in sizes] for play in plays])
    return PowerCounts(
        sizes=np.array(sizes, dtype=np.float64),
        found=found.astype(np.float64),
        tried=tried.astype(np.float64),
    )


def users_needed(counts: PowerCounts, *, worlds: FloatArray) -> FloatArray:
    """Users for 80 % power, one number for each weighting ``worlds`` [B, W] of the worlds.

    The power of a test on n users is close to Φ(δ√n − z), z = Φ⁻¹(1 − α/2): of the δ on a grid the
    likeliest is taken, so that all sizes help to interpolate between them.
    """
    reach = stats.norm.isf(ALPHA / 2) + stats.norm.ppf(POWER)
    noncentrality = reach * np.sqrt(counts.sizes / _GRID[:, None])  # [G, S]
    log_found = stats.norm.logcdf(noncentrality - stats.norm.isf(ALPHA / 2))
    log_missed = stats.norm.logsf(noncentrality - stats.norm.isf(ALPHA / 2))
    found, missed = worlds @ counts.found, worlds @ (counts.tried - counts.found)  # [B, S]
    return _GRID[np.argmax(found @ log_found.T + missed @ log_missed.T, axis=1)]


def blocks_of(play: WorldPlay, size: int) -> Iterator[slice]:
    """Users in blocks of ``size``; what is left over is left out."""
    num_users = len(play.better.in_treatment)
    return (slice(start, start + size) for start in range(0, num_users - size + 1, size))


def _add_false_alarms(proof: Proof, plays: Sequence[WorldPlay]) -> None:
    effects = [
        effects_of(play.equal, block) for play in plays for block in blocks_of(play, BLOCK_USERS)
    ]
    for method in METHODS:
        alarms = np.array([one[method].p_value < ALPHA for one in effects])
        proof.figures[f"world_a_a_false_alarm_share_{method}"] = share_figure(alarms)
        title = f"world, A/A, {method}"
        verdict = share_verdict(title, alarms, expected=ALPHA, family=len(METHODS))
        proof.verdicts.append(verdict)


def _add_coverage(proof: Proof, plays: Sequence[WorldPlay]) -> None:
    covered: dict[str, list[bool]] = {method: [] for method in METHODS}
    for play in plays:
        for block in blocks_of(play, BLOCK_USERS):
            for method, effect in effects_of(play.better, block).items():
                truth = play.rate_lift if method == "click_rate" else play.click_lift
                covered[method].append(
                    effect.lift is not None and effect.lift_ci_low <= truth <= effect.lift_ci_high
                )
    for method, hits in covered.items():
        shares = np.array(hits)
        proof.figures[f"world_true_lift_within_interval_share_{method}"] = share_figure(shares)
        title = f"world, 95 % intervals of the true lift, {method}"
        verdict = share_verdict(title, shares, expected=CONFIDENCE, family=len(METHODS))
        proof.verdicts.append(verdict)


def _add_gain(proof: Proof, plays: Sequence[WorldPlay]) -> None:
    rng = np.random.default_rng(SEEDS["world_experiments"])
    once = np.ones(len(plays))
    resampled = rng.multinomial(len(plays), once / len(plays), size=NUM_RESAMPLES)  # [B, W]
    worlds = np.vstack([once, resampled]).astype(np.float64)
    needed = {}
    for method, user_counts in SIZES.items():
        counts = count_power(plays, user_counts, finds=_finder(method))
        for size, found, tried in zip(
            user_counts, counts.found.sum(axis=0), counts.tried.sum(axis=0), strict=True
        ):
            if tried:
                hits = np.arange(tried) < found
                proof.figures[f"world_power_share_{method}_{size}_users"] = share_figure(hits)
        needed[method] = users_needed(counts, worlds=worlds)
        label = f"world_users_needed_for_80_percent_power_{method}"
        proof.figures[label] = _with_interval(needed[method])
    lifts = np.array([play.click_lift for play in plays])
    proof.figures["world_true_lift_mean_over_control"] = Figure(value=float(lifts.mean()))
    for method in ("clicks_per_user", "clicks_per_user_cuped"):
        gain = needed[method] / needed["interleaving"]
        proof.figures[f"world_interleaving_times_fewer_users_than_{method}"] = _with_interval(gain)
        proof.verdicts.append(
            Verdict(
                proof=f"world, users for interleaving over users for A/B on {method}",
                value=float(1 / gain[0]),
                low=0.0,
                high=1.0,
            )
        )


def _finder(method: str) -> Callable[[WorldPlay, slice], bool]:
    if method == "interleaving":
        return lambda play, users: interleaving_finds(play.interleaved, users)

    def finds(play: WorldPlay, users: slice) -> bool:
        effect = effects_of(play.better, users)[method]
        return effect.p_value < ALPHA and effect.difference > 0

    return finds


def _with_interval(estimates: FloatArray) -> Figure:
    """The first is of the worlds as they are, the others of resampled ones."""
    low, high = np.quantile(estimates[1:], [ALPHA / 2, 1 - ALPHA / 2])
    return Figure(value=float(estimates[0]), ci_low=float(low), ci_high=float(high))
