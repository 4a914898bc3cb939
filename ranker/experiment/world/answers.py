"""The world answers slates that anybody made: the users who come see theirs, and do what they do.

This is what a live system is to a nightly job: slates go out for every request that could come,
some users stay away, and outcomes come back.

Shapes: ``N`` shown rows, ``U`` users, ``R`` requests, ``X`` ranks of the world's slates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from ranker.experiment.world.behaviour import draw, no_novelty, responses, unchanged_clicks
from ranker.experiment.world.counterfactual import quiet_catalogue
from ranker.experiment.world.days import Shown, return_probability
from ranker.experiment.world.items import Catalogue
from ranker.experiment.world.log import label_columns, midnight_ms
from ranker.experiment.world.randomness import FloatArray, IntArray, Source, generator
from ranker.experiment.world.sessions import (
    Requests,
    draw_requests,
    num_chunks,
    users_of_chunk,
)
from ranker.experiment.world.world import World


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GivenSlates:
    """Slates of a day as rows, in any order; all arrays are [N].

    Attributes:
        requests: the world's request ids.
        items: an item is in a slate once.
        ranks: 1, 2, ... without gaps.
    """

    requests: IntArray
    items: IntArray
    ranks: IntArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """What a day brought.

    Attributes:
        outcomes: one row for each item shown to users who came: ``request_id``, ``item_id``, the
            log's labels, and ``answered_ms``, when the feedback came: as much later as was watched.
        active: who comes on the next day: 0 or 1, [U].
    """

    outcomes: pa.Table
    active: FloatArray


def answer_slates(
    world: World, slates: GivenSlates, *, day: int, active: FloatArray, seed: int
) -> Answers:
    """Show the active users their slates, and draw what they do.

    Args:
        world: where; crowding is left out, as in `expected_outcomes`.
        slates: of requests of ``day``; requests without a slate bring nothing.
        day: of the world.
        active: who comes today, 0 or 1, [U]; see `active_at_start`.
        seed: of what users happen to do.

    Raises:
        ValueError: requests that the day does not have, items that are not published yet, ranks
            with gaps, or slates longer than the world's.
    """
    catalogue = quiet_catalogue(world, day=day)
    ids, table = _by_request(world, catalogue, slates)
    tables, tomorrow, num_known = [], [], 0
    for chunk in range(num_chunks(world)):
        requests = draw_requests(world, catalogue, chunk=chunk)
        num_known += int(np.isin(requests.ids, ids).sum())
        requests = requests.where(np.isin(requests.ids, ids) & (active[requests.users] > 0))
        shown = _shown(world, catalogue, requests, table[np.searchsorted(ids, requests.ids)])
        rng = generator(seed, Source.BEHAVIOUR, day=day, chunk=chunk)
        tables.append(_outcome_rows(world, shown, rng, day=day))
        is_here = active[users_of_chunk(world, chunk)] > 0
        stay = return_probability(world, shown, chunk=chunk)
        chance = np.where(is_here, stay, world.settings.activity.comeback_rate)
        tomorrow.append(rng.random(len(chance)) < chance)
    if num_known < len(ids):
        raise ValueError(
            f"slates: {len(ids) - num_known:,} of {len(ids):,} requests are none of day {day}'s"
        )
    by_request = [("request_id", "ascending"), ("item_id", "ascending")]
    return Answers(
        outcomes=pa.concat_tables(tables).sort_by(by_request),
        active=np.concatenate(tomorrow).astype(np.float64),
    )


def _by_request(
    world: World, catalogue: Catalogue, slates: GivenSlates
) -> tuple[IntArray, IntArray]:
    """Request ids, ascending [R], and their items by rank, -1 past a slate's end [R, X]."""
    num_published, size = catalogue.order.shape[1], world.settings.slate_size
    for name, values, low, high in (
        ("items", slates.items, 0, num_published - 1),
        ("ranks", slates.ranks, 1, size),
    ):
        if len(values) and not (values.min() >= low and values.max() <= high):
            raise ValueError(
                f"slates: {name} of day {catalogue.day} are {low}..{high}, got {values.min()} to "
                f"{values.max()}"
            )
    ids, place = np.unique(slates.requests, return_inverse=True)
    table = np.full((len(ids), size), -1, dtype=np.int64)
    table[place, slates.ranks - 1] = slates.items
    lengths = np.bincount(place, minlength=len(ids))
    ends = np.where(table >= 0, np.arange(1, size + 1), 0).max(axis=1, initial=0)
    if not np.array_equal(lengths, ends):
        bad = ids[(lengths != ends).argmax()]
        raise ValueError(f"slates: the ranks of request {bad} have gaps, or one is there twice")
    ordered = np.sort(table, axis=1)
    if ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any():
        raise ValueError("slates: an item is twice in a slate; drop duplicates")
    return ids, table


def _shown(world: World, catalogue: Catalogue, requests: Requests, items: IntArray) -> Shown:
    """What slates [R, X] are worth; nobody looks past a slate's end."""
    missing = items < 0
    items = np.where(missing, 0, items)
    given = responses(
        world,
        catalogue,
        requests,
        items,
        novelty=no_novelty(requests),
        click_factor=unchanged_clicks(requests),
    )
    seen = replace(given, examination=np.where(missing, 0.0, given.examination))
    return Shown(
        requests=requests,
        candidates=items,
        items=np.where(missing, -1, items),
        propensities=np.ones(items.shape),
        responses=seen,
    )


def _outcome_rows(world: World, shown: Shown, rng: np.random.Generator, *, day: int) -> pa.Table:
    drawn = draw(world, shown.responses, rng=rng)
    num_requests, size = shown.items.shape
    rows = np.repeat(np.arange(num_requests), size)
    asked_ms = midnight_ms(world, day) + 1000 * shown.requests.times_s[rows]
    watched_ms = np.round(1000 * drawn.watch_time_s.ravel()).astype(np.int64)
    table = pa.table(
        {
            "request_id": pa.array(shown.requests.ids[rows]),
            "item_id": pa.array(shown.items.ravel()),
            **label_columns(drawn),
            "answered_ms": pa.array(asked_ms + watched_ms),
        }
    )
    return table.filter(pa.array(shown.items.ravel() >= 0))
