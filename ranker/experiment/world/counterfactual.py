"""What any slate would bring, exactly: no experiment and no estimate needed.

Shapes: ``R`` requests, ``X`` items of a slate.
"""

from __future__ import annotations

import numpy as np

from ranker.experiment.world.behaviour import (
    Outcomes,
    expect,
    no_novelty,
    responses,
    unchanged_clicks,
)
from ranker.experiment.world.items import Catalogue, open_catalogue
from ranker.experiment.world.randomness import IntArray
from ranker.experiment.world.sessions import Requests
from ranker.experiment.world.world import World


def quiet_catalogue(world: World, *, day: int) -> Catalogue:
    """The catalogue of a day before which nothing was shown: no item is crowded.

    Raises:
        ValueError: the world has no such day.
    """
    exposure = np.zeros(world.settings.num_items)
    return open_catalogue(world.items, day=day, exposure=exposure, settings=world.settings)


def expected_outcomes(
    world: World, catalogue: Catalogue, requests: Requests, slates: IntArray
) -> Outcomes:
    """Mean outcome of every impression of any slates, whoever ranked them.

    Args:
        world, catalogue: where and when.
        requests: of the catalogue's day, [R].
        slates: items from the top, of the request's candidates or any others, [R, X].

    Raises:
        ValueError: another number of slates than of requests, slates longer than the world's,
            items that the day's catalogue lacks, or one twice in a slate.
    """
    num_published = catalogue.order.shape[1]
    if slates.ndim != 2 or len(slates) != len(requests.ids):
        raise ValueError(f"slates: expected {len(requests.ids)} rows, got shape {slates.shape}")
    if slates.shape[1] > world.settings.slate_size:
        raise ValueError(
            f"slates: at most {world.settings.slate_size} positions have an examination, got "
            f"{slates.shape[1]}; make the world with a larger slate_size"
        )
    if slates.size and not (slates.min() >= 0 and slates.max() < num_published):
        raise ValueError(
            f"slates: items of day {catalogue.day} are 0..{num_published - 1}, got "
            f"{slates.min()} to {slates.max()}"
        )
    ordered = np.sort(slates, axis=1)
    if np.any(ordered[:, 1:] == ordered[:, :-1]):
        raise ValueError("slates: an item is twice in a slate; drop duplicates")
    given = responses(
        world,
        catalogue,
        requests,
        slates,
        novelty=no_novelty(requests),
        click_factor=unchanged_clicks(requests),
    )
    return expect(world, given)
