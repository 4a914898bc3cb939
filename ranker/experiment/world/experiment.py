"""An experiment in the world: its table of outcomes, what is expected of it, and the true lift.

Pre-period and experiment follow each other; in the pre-period everybody is under control. Users
outside the experiment stay under control and are left out of the table, though the items they
crowd are the same ones. The table has one row per user and day, active or not: who stays away
counts with zeros, so that a ranking that drives users off can't hide it.

Shapes: ``U`` users of the world, ``V`` users of a chunk, ``R`` requests, ``K`` shown.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from ranker.config import Config
from ranker.experiment.assignment import assign_arms
from ranker.experiment.world.behaviour import Outcomes, expect
from ranker.experiment.world.days import (
    Arm,
    PlayedChunk,
    Treatment,
    active_at_start,
    draw_chunk,
    item_exposure,
    play_days,
    return_probability,
    show,
)
from ranker.experiment.world.items import Catalogue
from ranker.experiment.world.randomness import FloatArray, IntArray
from ranker.experiment.world.sessions import users_of_chunk
from ranker.experiment.world.world import World

METRICS = (
    "active",
    "requests",
    "impressions",
    "clicks",
    "watch_time_s",
    "likes",
    "dismissals",
    "surveys",
    "rating_sum",
    "returned",
)
TENURE_EDGES_DAYS = (30, 365)
TENURES = np.array(["under_30_days", "30_to_365_days", "over_365_days"])
SumsByMetric = dict[str, FloatArray]


class ExperimentSettings(Config):
    """When, and who.

    Attributes:
        share_by_arm: of all users; together at most 1.
        control: the arm that everybody is under in the pre-period.
        first_day: of the experiment, in the world's days; before it come ``pre_period_days``.
        seed: of what users happen to do; their requests are the world's.
    """

    share_by_arm: dict[str, float] = Field(default={"control": 0.5, "treatment": 0.5}, min_length=1)
    control: str = "control"
    salt: str = Field(default="experiment", pattern="^[^:]+$")
    first_day: int = Field(default=7, ge=0)
    num_days: int = Field(default=7, ge=1)
    pre_period_days: int = Field(default=7, ge=0)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.control not in self.share_by_arm:
            raise ValueError(
                f"control {self.control!r} is not among the arms {list(self.share_by_arm)}"
            )
        if self.pre_period_days > self.first_day:
            raise ValueError(
                f"pre_period_days {self.pre_period_days} must be at most first_day "
                f"{self.first_day}: the world begins on day 0"
            )
        return self

    @property
    def days(self) -> range:
        """Pre-period and experiment."""
        return range(self.first_day - self.pre_period_days, self.first_day + self.num_days)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """Arms and users of an experiment.

    Attributes:
        names: of the arms, control first.
        arms: in that order.
        arm_of_user: index into them, [U].
    """

    names: Sequence[str]
    arms: Sequence[Arm]
    arm_of_user: IntArray


def run_experiment(
    world: World, arms: Mapping[str, Arm], *, settings: ExperimentSettings, jobs: int = 1
) -> pa.Table:
    """Run it once: one row per user and day with the columns `METRICS`, sums of that day.

    Other columns: ``user``, ``arm``, ``day`` (a date), ``device`` (the user's most frequent),
    ``tenure``. ``returned`` is 1 where an active user is active the next day too. The same settings
    give the same table whatever the number of ``jobs``.

    Raises:
        ValueError: other arms than the settings name, or days that the world lacks.
    """
    plan = make_plan(world, arms, settings=settings)
    played = play_drawn(world, plan, settings=settings, jobs=jobs)
    return _tabulate(world, plan, played)


def expect_experiment(
    world: World, arms: Mapping[str, Arm], *, settings: ExperimentSettings, jobs: int = 1
) -> pa.Table:
    """The mean of `run_experiment` over all that users may do: the same rows, means for sums.

    Exact for the world's users, requests and slates where ``interference`` is 0. Otherwise items
    are as crowded as expected, not as drawn: a mean-field value, close where users are many.

    Raises:
        ValueError: as `run_experiment`.
    """
    plan = make_plan(world, arms, settings=settings)
    played = play_expected(world, plan, settings=settings, jobs=jobs)
    return _tabulate(world, plan, played)


def make_plan(world: World, arms: Mapping[str, Arm], *, settings: ExperimentSettings) -> Plan:
    """Assign the world's users; -1 is outside the experiment.

    Raises:
        ValueError: other arms than the settings name.
    """
    if set(arms) != set(settings.share_by_arm):
        raise ValueError(
            f"arms: expected {sorted(settings.share_by_arm)} as in share_by_arm, got {sorted(arms)}"
        )
    names = [settings.control, *(name for name in arms if name != settings.control)]
    users = np.arange(world.settings.num_users)
    assigned = assign_arms(users, salt=settings.salt, share_by_arm=settings.share_by_arm)
    number_of = {name: number for number, name in enumerate(names)} | {"": -1}
    unique, inverse = np.unique(assigned, return_inverse=True)
    numbers = np.array([number_of[str(name)] for name in unique])
    return Plan(names=names, arms=[arms[name] for name in names], arm_of_user=numbers[inverse])


def play_drawn(
    world: World, plan: Plan, *, settings: ExperimentSettings, jobs: int
) -> Iterator[tuple[int, SumsByMetric]]:
    """One draw of all days: the day and each metric's sums by user, [U]."""

    def play_chunk(
        catalogue: Catalogue, chunk: int, active: FloatArray
    ) -> PlayedChunk[SumsByMetric]:
        treatment = treatment_on(world, plan, day=catalogue.day, settings=settings)
        played = draw_chunk(
            world,
            catalogue,
            chunk=chunk,
            active=active,
            treatment=treatment,
            seed=settings.seed,
        )
        places = played.content.shown.requests.users - users_of_chunk(world, chunk).start
        sums = _sum_by_user(played.content.outcomes, places, num_users=len(active))
        return PlayedChunk(
            content=sums | {"active": active, "returned": active * played.active},
            active=played.active,
            exposure=played.exposure,
        )

    start = active_at_start(world, seed=settings.seed)
    return _merge(play_days(world, settings.days, active=start, play_chunk=play_chunk, jobs=jobs))


def play_expected(
    world: World, plan: Plan, *, settings: ExperimentSettings, jobs: int
) -> Iterator[tuple[int, SumsByMetric]]:
    """What is expected of all days: the day and each metric's mean by user, [U].

    Of a user's day everything but his being active is independent of what he did before, so that
    the probability of being active multiplies what an active day brings.
    """

    def play_chunk(
        catalogue: Catalogue, chunk: int, active: FloatArray
    ) -> PlayedChunk[SumsByMetric]:
        treatment = treatment_on(world, plan, day=catalogue.day, settings=settings)
        everyone = np.ones_like(active)
        shown = show(world, catalogue, chunk=chunk, takes_part=everyone, treatment=treatment)
        places = shown.requests.users - users_of_chunk(world, chunk).start
        sums = _sum_by_user(expect(world, shown.responses), places, num_users=len(active))
        stay = return_probability(world, shown, chunk=chunk)
        returned = active * stay
        content = {metric: active * values for metric, values in sums.items()}
        return PlayedChunk(
            content=content | {"active": active, "returned": returned},
            active=returned + (1 - active) * world.settings.activity.comeback_rate,
            exposure=item_exposure(world, shown, weights=active[places]),
        )

    start = np.full(world.settings.num_users, world.settings.activity.share_active)
    return _merge(play_days(world, settings.days, active=start, play_chunk=play_chunk, jobs=jobs))


def treatment_on(world: World, plan: Plan, *, day: int, settings: ExperimentSettings) -> Treatment:
    """What each user gets on ``day``: control before the experiment and outside of it."""
    days_in = day - settings.first_day
    arm_of_user = (
        np.maximum(plan.arm_of_user, 0) if days_in >= 0 else np.zeros_like(plan.arm_of_user)
    )
    novelty = world.settings.novelty
    left = novelty.size * 2.0 ** (-days_in / novelty.half_life_days)
    return Treatment(
        arms=plan.arms, arm_of_user=arm_of_user, novelty=[0.0] + [left] * (len(plan.arms) - 1)
    )


def _sum_by_user(outcomes: Outcomes, places: IntArray, *, num_users: int) -> SumsByMetric:
    """Sum impressions [R, K] of requests by ``places`` [R], the user's in the chunk; each [V]."""
    slate_size = outcomes.click.shape[1]
    num_requests = np.bincount(places, minlength=num_users).astype(np.float64)
    rating = np.where(outcomes.surveyed > 0, outcomes.surveyed * outcomes.rating, 0.0)
    by_impression = {
        "clicks": outcomes.click,
        "watch_time_s": outcomes.watch_time_s,
        "likes": outcomes.like,
        "dismissals": outcomes.dismissed,
        "surveys": outcomes.surveyed,
        "rating_sum": rating,
    }
    sums = {
        metric: np.bincount(places, weights=values.sum(axis=1), minlength=num_users)
        for metric, values in by_impression.items()
    }
    return {"requests": num_requests, "impressions": num_requests * slate_size} | sums


def _merge(
    days: Iterator[tuple[int, FloatArray, list[SumsByMetric]]],
) -> Iterator[tuple[int, SumsByMetric]]:
    for day, _, chunks in days:
        yield day, {name: np.concatenate([one[name] for one in chunks]) for name in METRICS}


def _tabulate(
    world: World,
    plan: Plan,
    days: Iterator[tuple[int, SumsByMetric]],
) -> pa.Table:
    users = np.flatnonzero(plan.arm_of_user >= 0)
    device_names = np.array([device.name for device in world.settings.devices])
    tenure = np.digitize(world.users.tenure_days[users], TENURE_EDGES_DAYS)
    of_user = {
        "user": pa.array(users),
        "arm": pa.array(np.array(plan.names)[plan.arm_of_user[users]]),
        "device": pa.array(device_names[np.argmax(world.users.device_logits[users], axis=1)]),
        "tenure": pa.array(TENURES[tenure]),
    }
    tables = []
    for day, sums in days:
        date = world.settings.first_date + datetime.timedelta(days=day)
        columns = {name: pa.array(sums[name][users]) for name in METRICS}
        dates = pa.repeat(pa.scalar(date, pa.date32()), len(users))
        tables.append(pa.table({**of_user, "day": dates, **columns}))
    return pa.concat_tables(tables)
