"""Proofs of the simulated world: its formulas, its curves, what live experiments suffer from.

Shapes: P positions, V devices, W worlds.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from laboratory_runs import CONFIDENCE, FAMILY_ERROR, FloatArray, Proof, Verdict, repeat
from laboratory_sizes import SEEDS, Sizes
from laboratory_world_experiments import prove_experiments
from laboratory_world_plays import (
    CONTROL,
    FIRST_DAY,
    SETTINGS,
    TREATMENT,
    ExperimentSums,
    against,
    drawn_sums,
    expected_sums,
    settings_of,
    world_of,
)
from record import Figure
from scipy import stats

from ranker.experiment.effect import Effect
from ranker.experiment.ratios import RatioSample, ratio_effect
from ranker.experiment.world.behaviour import Responses, draw, expect
from ranker.experiment.world.counterfactual import quiet_catalogue
from ranker.experiment.world.days import Arm, Treatment, draw_chunk, show
from ranker.experiment.world.experiment import METRICS, expect_experiment, run_experiment
from ranker.experiment.world.policies import engagement_oracle, random_policy
from ranker.experiment.world.sessions import CHUNK_USERS
from ranker.experiment.world.world import World

TASKS = ("click", "watch_time_s", "like", "dismissed", "rating", "surveyed")
CURVES = ("none", "fig6", "fig7")
_NOVELTY = {"size": 0.4, "half_life_days": 1.0}
_INTERFERENCE = 1.0
_SHARE_TREATMENT = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class ImpressionErrors:
    """One draw of given impressions: each task's sum minus the formula's."""

    world: World
    given: Responses

    def __call__(self, rng: np.random.Generator) -> Mapping[str, float]:
        expected, drawn = expect(self.world, self.given), draw(self.world, self.given, rng=rng)
        # A rating counts where somebody was asked.
        return {
            task: float(np.nansum(getattr(drawn, task) - getattr(expected, task))) for task in TASKS
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CourseErrors:
    """One draw of a whole experiment: each metric's sum minus the expected one."""

    world: World
    expected: Mapping[str, float]

    def __call__(self, rng: np.random.Generator) -> Mapping[str, float]:
        settings = SETTINGS.model_copy(update={"seed": int(rng.integers(2**31))})
        table = run_experiment(self.world, against(CONTROL, TREATMENT), settings=settings)
        return {name: table[name].to_numpy().sum() - self.expected[name] for name in METRICS}


def prove_formulas(sizes: Sizes, executor: Executor) -> Proof:
    """Expected outcomes are the means of drawn ones, by impression and over days."""
    seed = SEEDS["world_formulas"]
    world = world_of({"behaviour": {"survey_rate": 0.3}}, seed=seed, num_users=700)
    shown = show(
        world,
        quiet_catalogue(world, day=2),
        chunk=0,
        takes_part=np.ones(700),
        treatment=_everybody(world),
    )
    errors = repeat(
        ImpressionErrors(world=world, given=shown.responses),
        times=sizes.world_draws,
        seed=seed,
        executor=executor,
    )
    small = world_of({}, seed=seed + 1, num_users=300)
    table = expect_experiment(small, against(CONTROL, TREATMENT), settings=SETTINGS)
    course = repeat(
        CourseErrors(
            world=small, expected={name: table[name].to_numpy().sum() for name in METRICS}
        ),
        times=sizes.world_draws // 5,
        seed=seed + 1,
        executor=executor,
    )
    by_name = {f"impressions_{k}": v for k, v in errors.items()}
    by_name |= {f"days_{k}": v for k, v in course.items()}
    proof = Proof(figures={})
    for name, values in by_name.items():
        statistic = float(stats.ttest_1samp(values, 0.0).statistic)
        limit = float(stats.t.isf(FAMILY_ERROR / len(by_name) / 2, len(values) - 1))
        proof.figures[f"world_formula_z_{name}"] = Figure(value=statistic)
        proof.verdicts.append(
            Verdict(
                proof=f"world, formula against Monte Carlo, {name}: z",
                value=statistic,
                low=-limit,
                high=limit,
            )
        )
    return proof


def prove_positions(sizes: Sizes, executor: Executor) -> Proof:
    """Under a random order click rates by position are what the examination curve says."""
    proof = Proof(figures={})
    seeds = [SEEDS["world_positions"] + number for number in range(sizes.worlds)]
    for curve in CURVES:
        played = executor.map(count_clicks, [curve] * len(seeds), seeds)
        counts = np.sum(list(played), axis=0)  # [2, V, P]
        world = world_of(_examined(curve), seed=0, num_users=1)
        p_value, farthest = compare_with_curve(counts[0], counts[1], world.examination)
        proof.figures[f"world_positions_farthest_{curve}_over_expected"] = Figure(value=farthest)
        proof.verdicts.append(
            Verdict(
                proof=f"world, click rates by position, examination {curve} (p of chi-square)",
                value=p_value,
                low=FAMILY_ERROR / len(CURVES),
                high=1.0,
            )
        )
    return proof


def count_clicks(curve: str, seed: int) -> FloatArray:
    """Clicks and impressions of a random order on one day, by device and position, [2, V, P]."""
    world = world_of(_examined(curve), seed=seed, num_users=CHUNK_USERS)
    drawn = draw_chunk(
        world,
        quiet_catalogue(world, day=2),
        chunk=0,
        active=np.ones(world.settings.num_users),
        treatment=_everybody(world),
        seed=seed,
    ).content
    clicks = np.zeros(world.examination.shape)
    shown = np.zeros(world.examination.shape)
    np.add.at(clicks, drawn.shown.requests.devices, drawn.outcomes.click)
    np.add.at(shown, drawn.shown.requests.devices, 1.0)
    return np.stack([clicks, shown])


def compare_with_curve(
    clicks: FloatArray, shown: FloatArray, examination: FloatArray
) -> tuple[float, float]:
    """The chi-square p-value that click rates are proportional to the curve, and the farthest rate.

    Each device, [V, P], has a level of its own. Clicks of one request go with its user, whatever
    the position, so that rates scatter a little less than the test allows for.
    """
    level = clicks.sum(axis=1) / (shown * examination).sum(axis=1)
    rate = level[:, None] * examination
    statistic = np.sum((clicks - shown * rate) ** 2 / (shown * rate * (1 - rate)))
    p_value = stats.chi2.sf(statistic, clicks.size - len(clicks))
    return float(p_value), float(np.max(np.abs(clicks / (shown * rate) - 1)))


def prove_novelty(sizes: Sizes, executor: Executor) -> Proof:
    """Of two equal policies the new one seems better at first, and doesn't without novelty."""
    seed = SEEDS["world_novelty"]
    proof = Proof(figures={})
    days = range(FIRST_DAY, SETTINGS.days.stop)
    played = executor.map(novelty_lifts, ["on", "off"], [seed, seed + 1], [sizes.users_world] * 2)
    for name, lifts in zip(("on", "off"), played, strict=True):
        for day, effect in zip(days, lifts, strict=True):
            label = f"world_novelty_{name}_lift_on_day_{day - FIRST_DAY + 1}_over_control"
            proof.figures[label] = Figure(
                value=effect.lift, ci_low=effect.lift_ci_low, ci_high=effect.lift_ci_high
            )
        if name == "on":
            title = "shows on the first day (its p)"
            value, bounds = lifts[0].p_value, (0.0, FAMILY_ERROR)
        else:
            title = "off: no lift on any day (least p, Bonferroni)"
            value = min(1.0, len(lifts) * min(effect.p_value for effect in lifts))
            bounds = (FAMILY_ERROR, 1.0)
        proof.verdicts.append(
            Verdict(proof=f"world, novelty {title}", value=value, low=bounds[0], high=bounds[1])
        )
    return proof


def novelty_lifts(switch: str, seed: int, num_users: int) -> list[Effect]:
    """Lift of click rates on each day between two equal policies."""
    changes = {"novelty": _NOVELTY} if switch == "on" else {}
    world = world_of(changes, seed=seed, num_users=num_users)
    sums = drawn_sums(world, against(CONTROL, CONTROL), settings=settings_of(seed))
    arms = [~sums.in_treatment, sums.in_treatment]
    return [
        ratio_effect(
            *(RatioSample(numerator=clicks[arm], denominator=shown[arm]) for arm in arms),
            confidence=CONFIDENCE,
        )
        for clicks, shown in zip(sums.clicks[FIRST_DAY:], sums.impressions[FIRST_DAY:], strict=True)
    ]


def prove_interference(sizes: Sizes, executor: Executor) -> Proof:
    """Treatment moves control's clicks by crowding its items, and doesn't without interference."""
    seeds = [SEEDS["world_interference"] + number for number in range(sizes.worlds_interference)]
    proof = Proof(figures={})
    for name, strength in (("on", _INTERFERENCE), ("off", 0.0)):
        users = [sizes.users_world] * len(seeds)
        played = executor.map(control_changes, [strength] * len(seeds), seeds, users)
        changes = np.array(list(played))  # [W, 2]
        expected, drawn = changes.mean(axis=0).tolist()
        size = float(np.abs(changes[:, 0]).min() if strength else np.abs(changes[:, 0]).max())
        z = float(stats.ttest_rel(changes[:, 1], changes[:, 0]).statistic)
        interval = stats.ttest_1samp(changes[:, 1], 0.0).confidence_interval(CONFIDENCE)
        limit = float(stats.t.isf(FAMILY_ERROR / 4, len(seeds) - 1))
        label = f"world_interference_{name}_change_of_control_clicks_over_none_treated"
        proof.figures[f"{label}_expected"] = Figure(value=expected)
        proof.figures[f"{label}_drawn"] = Figure(
            value=drawn, ci_low=float(interval.low), ci_high=float(interval.high)
        )
        title = f"world, interference {name}: change of control's clicks"
        low, high = (0.01, 1.0) if strength else (0.0, 1e-12)
        proof.verdicts.extend(
            [
                Verdict(proof=f"{title}, expected, size", value=size, low=low, high=high),
                Verdict(
                    proof=f"{title}, drawn against expected, z", value=z, low=-limit, high=limit
                ),
            ]
        )
    return proof


def control_changes(interference: float, seed: int, num_users: int) -> tuple[float, float]:
    """Relative change of clicks of control's users when others are treated: expected, and drawn."""
    world = world_of({"interference": interference}, seed=seed, num_users=num_users)
    shares = {"control": 1 - _SHARE_TREATMENT, "treatment": _SHARE_TREATMENT}
    settings = SETTINGS.model_copy(update={"share_by_arm": shares, "seed": seed})

    def change(play: Callable[..., ExperimentSums]) -> float:
        treated, alone = (
            sums.clicks[FIRST_DAY:, ~sums.in_treatment].sum()
            for policy in (engagement_oracle(), random_policy())
            for sums in [play(world, against(random_policy(), policy), settings=settings)]
        )
        return float(treated / alone - 1)

    return change(expected_sums), change(drawn_sums)


def _examined(curve: str) -> dict[str, object]:
    return {"examination": {"kind": curve}, "slate_size": 9, "behaviour": {"click_rate": 0.1}}


def _everybody(world: World) -> Treatment:
    """Everybody gets a random order."""
    return Treatment(
        arms=[Arm(policy=random_policy())],
        arm_of_user=np.zeros(world.settings.num_users, dtype=np.int64),
        novelty=[0.0],
    )


PROOFS: dict[str, Callable[[Sizes, Executor], Proof]] = {
    "world_formulas": prove_formulas,
    "world_positions": prove_positions,
    "world_novelty": prove_novelty,
    "world_interference": prove_interference,
    "world_experiments": prove_experiments,
}
