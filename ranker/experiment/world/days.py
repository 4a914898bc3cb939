"""The course of days: who is active, what each arm shows, what it brings, who comes back.

One day is played chunk by chunk of users, several chunks at a time; only what a chunk leaves behind
is kept. Between days two things flow: which users are active, and which items are crowded. A user
is active on the next day with probability expit(return logit + return_slope · m) if he is active
today, where m is the mean satisfaction of the day's impressions weighted by their expected clicks,
and with ``comeback_rate`` if he is not.

Shapes: ``U`` users of the world, ``V`` users of a chunk, ``R`` requests, ``C`` candidates, ``K``
shown, ``I`` items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from scipy.special import expit

from ranker.experiment.world.behaviour import Outcomes, Responses, draw, responses
from ranker.experiment.world.items import Catalogue, open_catalogue
from ranker.experiment.world.policies import (
    WorldPolicy,
    conditional_propensities,
    slate_orders,
)
from ranker.experiment.world.randomness import FloatArray, IntArray, Source, generator
from ranker.experiment.world.sessions import (
    Requests,
    draw_candidates,
    draw_requests,
    num_chunks,
    users_of_chunk,
)
from ranker.experiment.world.world import World

EXPOSURE_KEPT = 0.5  # of an item's exposure is left a day later
Content = TypeVar("Content")


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """What a group of users gets.

    Attributes:
        click_lift: injects a known effect: P(click | examined) is so much higher than the ranking
            alone would make it, 0.02 = 2 %, and with it everything that needs a click.
    """

    policy: WorldPolicy
    click_lift: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Treatment:
    """Who is in which arm on one day.

    Attributes:
        arms: the arms in play.
        arm_of_user: index into ``arms``, [U].
        novelty: added to the click logit of each arm's users; 0 for control.
    """

    arms: Sequence[Arm]
    arm_of_user: IntArray
    novelty: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shown:
    """Slates of requests, and what they are worth.

    Attributes:
        candidates: [R, C].
        items: the slates, [R, K].
        propensities: conditional on the ranks above, [R, K].
    """

    requests: Requests
    candidates: IntArray
    items: IntArray
    propensities: FloatArray
    responses: Responses


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawn:
    """Slates and one draw of what they brought."""

    shown: Shown
    outcomes: Outcomes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlayedChunk(Generic[Content]):
    """What a chunk of users leaves behind.

    Attributes:
        content: what the caller keeps.
        active: on the next day: 0 or 1, or a probability, [V].
        exposure: how often each item was shown, [I].
    """

    content: Content
    active: FloatArray
    exposure: FloatArray


PlayChunk = Callable[[Catalogue, int, FloatArray], PlayedChunk[Content]]


def active_at_start(world: World, *, seed: int) -> FloatArray:
    """Who is active on the first day played: 0 or 1, [U]."""
    rng = generator(seed, Source.ACTIVITY)
    active = rng.random(world.settings.num_users) < world.settings.activity.share_active
    return active.astype(np.float64)


def play_days(
    world: World,
    days: range,
    *,
    active: FloatArray,
    play_chunk: PlayChunk[Content],
    jobs: int,
) -> Iterator[tuple[int, FloatArray, list[Content]]]:
    """Play day after day; yield the day, who was active on it [U], and the chunks' contents.

    Args:
        world: where.
        days: of the world.
        active: on the first of them, [U].
        play_chunk: called with the day's catalogue, the chunk's number and who is active in it.
        jobs: how many chunks are worked on at a time; changes nothing but the speed.

    Raises:
        ValueError: days that the world lacks, or fewer than one job.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    exposure = np.zeros(world.settings.num_items)
    spans = [users_of_chunk(world, chunk) for chunk in range(num_chunks(world))]
    with ThreadPoolExecutor(jobs) as pool:
        for day in days:
            catalogue = open_catalogue(
                world.items, day=day, exposure=exposure, settings=world.settings
            )
            played = list(
                pool.map(
                    play_chunk,
                    [catalogue] * len(spans),
                    range(len(spans)),
                    [active[span] for span in spans],
                )
            )
            yield day, active, [one.content for one in played]
            active = np.concatenate([one.active for one in played])
            exposure = EXPOSURE_KEPT * exposure + sum(one.exposure for one in played)


def show(
    world: World,
    catalogue: Catalogue,
    *,
    chunk: int,
    takes_part: FloatArray,
    treatment: Treatment,
) -> Shown:
    """Let each arm rank the requests of its users in a chunk; users with 0 [V] don't take part."""
    requests = draw_requests(world, catalogue, chunk=chunk)
    places = requests.users - users_of_chunk(world, chunk).start  # [R]
    if not takes_part.all():
        requests = requests.where(takes_part[places] > 0)
    candidates = draw_candidates(world, catalogue, requests)
    arm_of_request = treatment.arm_of_user[requests.users]  # [R]
    slate_size = world.settings.slate_size
    items = np.empty((len(requests.ids), slate_size), dtype=np.int64)
    propensities = np.empty(items.shape)
    for number, arm in enumerate(treatment.arms):
        rows = arm_of_request == number
        if not rows.any():
            continue
        own, lists = requests.where(rows), candidates[rows]
        scores = arm.policy.scores(world, catalogue, own, lists)
        orders = slate_orders(world, arm.policy, requests=own, candidates=lists, scores=scores)
        items[rows] = np.take_along_axis(lists, orders[:, :slate_size], axis=1)
        propensities[rows] = conditional_propensities(
            scores, orders=orders, temperature=arm.policy.temperature, slate_size=slate_size
        )
    given = responses(
        world,
        catalogue,
        requests,
        items,
        novelty=np.array(treatment.novelty)[arm_of_request],
        click_factor=_click_factors(treatment.arms)[arm_of_request],
    )
    return Shown(
        requests=requests,
        candidates=candidates,
        items=items,
        propensities=propensities,
        responses=given,
    )


def draw_chunk(
    world: World,
    catalogue: Catalogue,
    *,
    chunk: int,
    active: FloatArray,
    treatment: Treatment,
    seed: int,
) -> PlayedChunk[Drawn]:
    """One draw of what a chunk's active users (1, not 0, in ``active`` [V]) do on a day."""
    rng = generator(seed, Source.BEHAVIOUR, day=catalogue.day, chunk=chunk)
    shown = show(world, catalogue, chunk=chunk, takes_part=active, treatment=treatment)
    outcomes = draw(world, shown.responses, rng=rng)
    stay = return_probability(world, shown, chunk=chunk)
    chance = np.where(active > 0, stay, world.settings.activity.comeback_rate)
    return PlayedChunk(
        content=Drawn(shown=shown, outcomes=outcomes),
        active=(rng.random(len(active)) < chance).astype(np.float64),
        exposure=item_exposure(world, shown, weights=np.ones(len(shown.items))),
    )


def return_probability(world: World, shown: Shown, *, chunk: int) -> FloatArray:
    """P(active tomorrow) of each of a chunk's users if he is active today, [V]."""
    span = users_of_chunk(world, chunk)
    given = shown.responses
    weights = given.examination * given.click
    places = shown.requests.users - span.start
    num_users = span.stop - span.start
    total = np.bincount(places, weights=weights.sum(axis=1), minlength=num_users)
    content = np.bincount(
        places, weights=(weights * given.satisfaction).sum(axis=1), minlength=num_users
    )
    mean = np.divide(content, total, out=np.zeros(num_users), where=total > 0)
    slope = world.settings.activity.return_slope
    return np.asarray(expit(world.users.return_logit[span] + slope * mean))


def item_exposure(world: World, shown: Shown, *, weights: FloatArray) -> FloatArray:
    """How often each item was shown when request r counts ``weights[r]``, [I]."""
    counts = np.bincount(
        shown.items.ravel(),
        weights=np.repeat(weights, shown.items.shape[1]),
        minlength=world.settings.num_items,
    )
    return counts.astype(np.float64)


def _click_factors(arms: Sequence[Arm]) -> FloatArray:
    """Clicks are thinned relative to the arm with the largest lift: exact, and never above 1."""
    gains = np.array([1 + arm.click_lift for arm in arms])
    return np.asarray(gains / max(float(gains.max()), 1.0))
