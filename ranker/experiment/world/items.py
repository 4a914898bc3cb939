"""The items: topics, quality and clickbait, and the day's order from which candidates come.

Quality q and clickbait c are uncorrelated over the items and have deviation 1. An item's appeal is
a·q + b·c and its satisfaction a·q − b·c with a² + b² = 1. Click rates and ratings are curved
functions of the two, so that their correlation is not quite a² − b²: a is solved for such that,
over the items, expected click rate and expected rating correlate as the setting ``conflict`` asks.

Shapes: ``I`` items, ``N`` items published by a day, ``T`` topics, ``C`` candidates of a request,
``Q`` points of a quadrature.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit, ndtr

from ranker.experiment.world.randomness import FloatArray, IntArray, Source, generator
from ranker.experiment.world.settings import (
    SHARE_PUBLISHED_BEFORE,
    BehaviourSettings,
    WorldSettings,
)
from ranker.experiment.world.users import standardised

PAST_DAYS = 60
LARGEST_LATENT = 0.9999  # correlation of appeal and satisfaction
NUM_POINTS = 21  # of the quadrature
TOPIC_WEIGHTS = (0.8, 0.6)  # of an item's first and second topic: squares sum to 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Items:
    """One entry an item, in order of publication.

    Attributes:
        topic, second_topic: never the same, [I].
        quality, clickbait: uncorrelated, mean 0, deviation 1, [I].
        appeal, satisfaction: mean 0, deviation 1, [I].
        popularity: logarithm, without age, [I].
        published_day: ascending, negative before the world's first day, [I].
    """

    topic: IntArray
    second_topic: IntArray
    quality: FloatArray
    clickbait: FloatArray
    appeal: FloatArray
    satisfaction: FloatArray
    popularity: FloatArray
    published_day: IntArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Catalogue:
    """What can be proposed on one day.

    Attributes:
        order: the N published items by popularity × match with a query item's topic, [T, N].
        click_logit: of P(click | examined) of each item for a user of average taste, [I].
        slices: candidate k comes from places ``slices[k]`` to ``slices[k + 1]`` of the order
            without the query item: each slice gives one, so none comes twice, [C + 1].
    """

    day: int
    order: IntArray
    slices: IntArray
    click_logit: FloatArray


def draw_items(settings: WorldSettings) -> Items:
    """Draw the items of a world.

    Raises:
        ValueError: no mixture of quality and clickbait has the conflict asked for.
    """
    rng = generator(settings.seed, Source.ITEMS)
    num_items, num_topics = settings.num_items, settings.num_topics
    topic = rng.integers(num_topics, size=num_items)
    quality, clickbait = uncorrelated(rng.normal(size=(num_items, 2))).T
    appeal, satisfaction = _in_conflict(quality, clickbait, settings=settings)
    noise = settings.candidates.popularity_noise * rng.normal(size=num_items)
    num_before = int(SHARE_PUBLISHED_BEFORE * num_items)
    published = np.concatenate(
        [
            rng.integers(-PAST_DAYS, 1, size=num_before),
            rng.integers(1, max(settings.num_days, 2), size=num_items - num_before),
        ]
    )
    return Items(
        topic=topic,
        second_topic=(topic + rng.integers(1, num_topics, size=num_items)) % num_topics,
        quality=quality,
        clickbait=clickbait,
        appeal=appeal,
        satisfaction=satisfaction,
        popularity=appeal + noise,
        published_day=np.sort(published),
    )


def open_catalogue(
    items: Items, *, day: int, exposure: FloatArray, settings: WorldSettings
) -> Catalogue:
    """The catalogue of ``day``: items published on it or before.

    Interference: an item whose exposure is x times the mean of the published ones loses
    ``interference`` · log(1 + x) of its click logit, for the users of every arm.

    Args:
        items: all items.
        day: counted from the world's first.
        exposure: how much each item was shown lately, in any unit, [I].
        settings: the world's.

    Raises:
        ValueError: a day before the first or after the last.
    """
    if not 0 <= day < settings.num_days:
        raise ValueError(
            f"day must be in 0..{settings.num_days - 1}, got {day}; a longer world has more "
            "num_days"
        )
    num_published = int(np.searchsorted(items.published_day, day, side="right"))
    mean_exposure = float(exposure[:num_published].mean())
    crowding = np.log1p(exposure / mean_exposure) if mean_exposure > 0 else np.zeros_like(exposure)
    behaviour = settings.behaviour
    return Catalogue(
        day=day,
        order=_proposal_order(items, num_published, day=day, settings=settings),
        slices=_slices(num_published, settings=settings),
        click_logit=logit(behaviour.click_rate)
        + behaviour.appeal_slope * items.appeal
        - settings.interference * crowding,
    )


def uncorrelated(columns: FloatArray) -> FloatArray:
    """Two columns made uncorrelated in the sample (Gram–Schmidt), mean 0 and deviation 1."""
    first, second = standardised(columns).T
    return standardised(np.stack([first, second - first * np.mean(first * second)], axis=1))


def _in_conflict(
    quality: FloatArray, clickbait: FloatArray, *, settings: WorldSettings
) -> tuple[FloatArray, FloatArray]:
    """Appeal and satisfaction [I] whose click rates and ratings correlate as asked."""

    def mixed(latent: float) -> tuple[FloatArray, FloatArray]:
        shared, opposed = np.sqrt((1 + latent) / 2) * quality, np.sqrt((1 - latent) / 2) * clickbait
        return shared + opposed, shared - opposed

    def correlation(latent: float) -> float:
        return float(np.corrcoef(*_expected_by_item(*mixed(latent), settings.behaviour))[0, 1])

    low, high = correlation(-LARGEST_LATENT), correlation(LARGEST_LATENT)
    if not low < settings.conflict < high:
        raise ValueError(
            f"conflict {settings.conflict:g}: with these behaviour settings click rates and "
            f"ratings of items can correlate by {low:.3f} to {high:.3f}; choose a value within"
        )
    latent: float = brentq(
        lambda one: correlation(one) - settings.conflict, -LARGEST_LATENT, LARGEST_LATENT
    )
    return mixed(latent)


def _expected_by_item(
    appeal: FloatArray, satisfaction: FloatArray, behaviour: BehaviourSettings
) -> tuple[FloatArray, FloatArray]:
    """P(click | examined) and mean rating of each item [I], over standard normal affinities.

    A rating's mean integrates in closed form: the affinity is one more normal error.
    """
    points, weights = np.polynomial.hermite_e.hermegauss(NUM_POINTS)  # [Q]
    by_item = logit(behaviour.click_rate) + behaviour.appeal_slope * appeal
    click = expit(by_item[:, None] + behaviour.click_taste * points) @ (weights / weights.sum())
    opinion = behaviour.rating_mean + behaviour.rating_slope * satisfaction
    taste = behaviour.rating_slope * behaviour.satisfaction_taste
    deviation = np.hypot(behaviour.rating_noise, taste)
    rating = sum(ndtr((opinion - k - 0.5) / deviation) for k in (1, 2, 3, 4))
    return click, 1 + rating


def _proposal_order(
    items: Items, num_published: int, *, day: int, settings: WorldSettings
) -> IntArray:
    published = slice(num_published)
    age_days = day - items.published_day[published]
    weight = items.popularity[published] - settings.candidates.age_slope * np.log1p(age_days)
    topics = np.arange(settings.num_topics)[:, None]  # [T, 1]
    match = (items.topic[published] == topics) + 0.5 * (items.second_topic[published] == topics)
    order = np.argsort(-(weight + settings.candidates.topic_match * match), axis=1, kind="stable")
    return order.astype(np.int64)  # [T, N]


def _slices(num_published: int, *, settings: WorldSettings) -> IntArray:
    count = settings.candidates.count
    steps = np.arange(count + 1)
    surplus = num_published - 1 - count  # the query item is no candidate
    beyond = np.floor(surplus * (steps / count) ** settings.candidates.depth).astype(np.int64)
    return np.asarray(steps + beyond)  # [C + 1]
