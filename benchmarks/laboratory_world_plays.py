"""Plays of the simulated world that the laboratory's proofs are made of.

Shapes: U users of the world, D days, R requests, C candidates, K shown.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from laboratory_runs import FloatArray
from numpy.typing import NDArray

from ranker.config import parse_config
from ranker.experiment.interleaving import interleave_by_team_draft
from ranker.experiment.world.behaviour import draw, no_novelty, responses, unchanged_clicks
from ranker.experiment.world.days import (
    Arm,
    PlayedChunk,
    Shown,
    active_at_start,
    play_days,
    return_probability,
)
from ranker.experiment.world.experiment import ExperimentSettings, expect_experiment, run_experiment
from ranker.experiment.world.items import Catalogue
from ranker.experiment.world.policies import KnownPolicy, slate_orders
from ranker.experiment.world.randomness import IntArray, Source, generator
from ranker.experiment.world.sessions import (
    Requests,
    draw_candidates,
    draw_requests,
    users_of_chunk,
)
from ranker.experiment.world.settings import WorldSettings
from ranker.experiment.world.truth import true_lift, true_means
from ranker.experiment.world.world import World, make_world

FIRST_DAY, NUM_DAYS = 3, 3  # of experiments; before them as many days of pre-period
SETTINGS = ExperimentSettings(first_day=FIRST_DAY, pre_period_days=FIRST_DAY, num_days=NUM_DAYS)
# Alike but for the error that each makes in judging an item.
CONTROL = KnownPolicy(name="control", engagement=1.0, noise=1.5)
TREATMENT = KnownPolicy(name="treatment", engagement=1.0, noise=1.0)
_WORLD = {
    "num_items": 600,
    "num_topics": 8,
    "num_days": FIRST_DAY + NUM_DAYS,
    "slate_size": 5,
    "candidates": {"count": 25},
    "activity": {"requests_per_day": 2.0},
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExperimentSums:
    """What each user did, clicks and impressions by day [D, U]; users of both arms."""

    in_treatment: NDArray[np.bool_]
    clicks: FloatArray
    impressions: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TeamClicks:
    """Clicks on each team's items over an interleaved experiment, by user, [U]."""

    control: FloatArray
    treatment: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WorldPlay:
    """One world, thrice: equal policies, a better one as treatment, both interleaved.

    Attributes:
        click_lift, rate_lift: the truth, of clicks per user and per impression.
    """

    equal: ExperimentSums
    better: ExperimentSums
    interleaved: TeamClicks
    click_lift: float
    rate_lift: float


def world_of(changes: Mapping[str, object], *, seed: int, num_users: int) -> World:
    """A small world: the laboratory's settings with ``changes``."""
    values = {**_WORLD, **changes, "seed": seed, "num_users": num_users}
    return make_world(parse_config(WorldSettings, values, source="laboratory"))


def against(control: KnownPolicy, treatment: KnownPolicy) -> dict[str, Arm]:
    return {"control": Arm(policy=control), "treatment": Arm(policy=treatment)}


def play_world(seed: int, num_users: int) -> WorldPlay:
    """Play the world of ``seed``; the plays differ in salt and luck."""
    world = world_of({}, seed=seed, num_users=num_users)
    arms = against(CONTROL, TREATMENT)
    means = true_means(world, arms, settings=SETTINGS)
    click_lift, rate_lift = (
        true_lift(control=means["control"], treatment=means["treatment"], metric="clicks", per=per)
        for per in (None, "impressions")
    )
    return WorldPlay(
        equal=drawn_sums(world, against(CONTROL, CONTROL), settings=settings_of(2 * seed)),
        better=drawn_sums(world, arms, settings=settings_of(2 * seed + 1)),
        interleaved=interleave(world, seed=2 * seed),
        click_lift=click_lift,
        rate_lift=rate_lift,
    )


def settings_of(seed: int) -> ExperimentSettings:
    return SETTINGS.model_copy(update={"seed": seed, "salt": f"laboratory {seed}"})


def drawn_sums(
    world: World, arms: Mapping[str, Arm], *, settings: ExperimentSettings
) -> ExperimentSums:
    return _by_day(run_experiment(world, arms, settings=settings), settings=settings)


def expected_sums(
    world: World, arms: Mapping[str, Arm], *, settings: ExperimentSettings
) -> ExperimentSums:
    return _by_day(expect_experiment(world, arms, settings=settings), settings=settings)


def interleave(world: World, *, seed: int) -> TeamClicks:
    """Show everybody slates of which each team picked half, on an experiment's days."""

    def play_chunk(
        catalogue: Catalogue, chunk: int, active: FloatArray
    ) -> PlayedChunk[tuple[FloatArray, FloatArray]]:
        rng = generator(seed, Source.BEHAVIOUR, day=catalogue.day, chunk=chunk)
        first_user = users_of_chunk(world, chunk).start
        requests = draw_requests(world, catalogue, chunk=chunk)
        requests = requests.where(active[requests.users - first_user] > 0)
        shown, by_treatment = _team_slates(world, catalogue, requests, rng=rng)
        clicks = draw(world, shown.responses, rng=rng).click
        stay = return_probability(world, shown, chunk=chunk)
        chance = np.where(active > 0, stay, world.settings.activity.comeback_rate)
        places = requests.users - first_user
        control, treatment = (
            np.bincount(places, weights=(clicks * team).sum(axis=1), minlength=len(active))
            for team in (~by_treatment, by_treatment)
        )
        return PlayedChunk(
            content=(control, treatment),
            active=(rng.random(len(active)) < chance).astype(np.float64),
            exposure=np.zeros(world.settings.num_items),  # nothing here interferes
        )

    start = active_at_start(world, seed=seed)
    days = range(FIRST_DAY, FIRST_DAY + NUM_DAYS)
    played = play_days(world, days, active=start, play_chunk=play_chunk, jobs=1)
    totals = [
        [np.concatenate(team) for team in zip(*chunks, strict=True)] for _, _, chunks in played
    ]
    control, treatment = np.sum(totals, axis=0)
    return TeamClicks(control=control, treatment=treatment)


def _team_slates(
    world: World, catalogue: Catalogue, requests: Requests, *, rng: np.random.Generator
) -> tuple[Shown, NDArray[np.bool_]]:
    """Interleaved slates, and whose item each is, [R, K]."""
    candidates = draw_candidates(world, catalogue, requests)
    num_requests, num_candidates = candidates.shape
    slate_size = world.settings.slate_size

    def ranks(policy: KnownPolicy) -> IntArray:
        scores = policy.scores(world, catalogue, requests, candidates)
        orders = slate_orders(
            world, policy, requests=requests, candidates=candidates, scores=scores
        )
        return 1 + np.argsort(orders, axis=1).ravel()

    drafted = interleave_by_team_draft(
        np.repeat(np.arange(num_requests), num_candidates),
        control_ranks=ranks(CONTROL),
        treatment_ranks=ranks(TREATMENT),
        slate_size=slate_size,
        rng=rng,
    )
    items = candidates.ravel()[drafted.candidates].reshape(num_requests, slate_size)
    given = responses(
        world,
        catalogue,
        requests,
        items,
        novelty=no_novelty(requests),
        click_factor=unchanged_clicks(requests),
    )
    shown = Shown(
        requests=requests,
        candidates=candidates,
        items=items,
        propensities=np.full(items.shape, np.nan),  # nobody asks for those of a draft
        responses=given,
    )
    return shown, drafted.by_treatment.reshape(items.shape)


def _by_day(table: pa.Table, *, settings: ExperimentSettings) -> ExperimentSums:
    """Rows come day after day, users in the same order on each."""
    num_days = len(settings.days)
    arms = table["arm"].to_numpy()
    return ExperimentSums(
        in_treatment=arms[: len(arms) // num_days] == "treatment",
        clicks=table["clicks"].to_numpy().reshape(num_days, -1),
        impressions=table["impressions"].to_numpy().reshape(num_days, -1),
    )
