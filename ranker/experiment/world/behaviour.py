"""What users do with an impression: probabilities and means by closed formula, and draws of them.

With x the user's affinity to the item (mood included), a and s the item's appeal and satisfaction:

- satisfaction = s + satisfaction_taste · x;
- P(click | examined) = expit(catalogue's click logit + click_taste · x + novelty);
- like, given a click, and dismissal, given examination: logistic in satisfaction;
- watch time, given a click: log-normal, its location linear in satisfaction;
- a survey asks at random; the rating is round(rating_mean + rating_slope · satisfaction + noise),
  cut to 1..5.

Given these, outcomes are independent between impressions, and within one except that click, like
and watch time need a click, click and dismissal an examination.

Shapes: ``R`` requests, ``X`` items of each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, ndtr

from ranker.experiment.world.items import TOPIC_WEIGHTS, Catalogue
from ranker.experiment.world.randomness import FloatArray, IntArray
from ranker.experiment.world.sessions import Requests
from ranker.experiment.world.world import World


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Responses:
    """What each impression is worth; every array is [R, X].

    Attributes:
        examination: P(examined).
        click, dismissal: probabilities given examination.
        like: probability given a click.
        watch_location: mean of the logarithm of seconds watched, given a click.
        satisfaction: latent, about standard normal.
    """

    examination: FloatArray
    click: FloatArray
    dismissal: FloatArray
    like: FloatArray
    watch_location: FloatArray
    satisfaction: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcomes:
    """Drawn or expected; every array is [R, X].

    Attributes:
        rating: drawn: NaN where nobody was asked; expected: of an answer.
        surveyed: 1 where the user was asked; expected: how often he is.
    """

    click: FloatArray
    watch_time_s: FloatArray
    like: FloatArray
    dismissed: FloatArray
    rating: FloatArray
    surveyed: FloatArray


def affinity(world: World, requests: Requests, items: IntArray) -> FloatArray:
    """The session's taste for the topics of ``items`` [R, X]; about standard normal, [R, X]."""
    taste: FloatArray = requests.taste.ravel()
    rows = (np.arange(len(requests.ids)) * requests.taste.shape[1])[:, None]
    first: FloatArray = taste.take(world.items.topic.take(items) + rows)
    first *= TOPIC_WEIGHTS[0]
    second = taste.take(world.items.second_topic.take(items) + rows)
    second *= TOPIC_WEIGHTS[1]
    first += second
    return first


def responses(
    world: World,
    catalogue: Catalogue,
    requests: Requests,
    items: IntArray,
    *,
    novelty: FloatArray,
    click_factor: FloatArray,
) -> Responses:
    """What slates bring.

    Args:
        world, catalogue: where and when.
        requests: of the catalogue's day, [R].
        items: the slate of each, from the top, [R, X] with X up to the world's slate size.
        novelty: added to the click logit, [R].
        click_factor: multiplies P(click | examined), at most 1, [R].
    """
    behaviour = world.settings.behaviour
    taste = affinity(world, requests, items)
    satisfaction = world.items.satisfaction[items] + behaviour.satisfaction_taste * taste
    click_logit = catalogue.click_logit[items] + behaviour.click_taste * taste + novelty[:, None]
    watch_factors = np.array([device.watch_factor for device in world.settings.devices])
    log_median = np.log(behaviour.watch_median_s * watch_factors)[requests.devices]
    return Responses(
        examination=world.examination[requests.devices, : items.shape[1]],
        click=click_factor[:, None] * expit(click_logit),
        dismissal=expit(logit(behaviour.dismissal_rate) - behaviour.dismissal_slope * satisfaction),
        like=expit(logit(behaviour.like_rate) + behaviour.like_slope * satisfaction),
        watch_location=log_median[:, None] + behaviour.watch_slope * satisfaction,
        satisfaction=satisfaction,
    )


def expect(world: World, given: Responses) -> Outcomes:
    """Mean outcomes, exactly.

    E[exp(m + σ z)] = exp(m + σ²/2). A rounded rating is 1 plus, for each k of 1..4, one where the
    opinion is above k + ½: its mean is 1 + Σ_k Φ((mean opinion − k − ½) / noise).
    """
    behaviour = world.settings.behaviour
    click = given.examination * given.click
    opinion = behaviour.rating_mean + behaviour.rating_slope * given.satisfaction
    rating = 1 + sum(ndtr((opinion - k - 0.5) / behaviour.rating_noise) for k in (1, 2, 3, 4))
    return Outcomes(
        click=click,
        watch_time_s=click * np.exp(given.watch_location + behaviour.watch_spread**2 / 2),
        like=click * given.like,
        dismissed=given.examination * given.dismissal,
        rating=np.asarray(rating),
        surveyed=np.full(click.shape, behaviour.survey_rate),
    )


def draw(world: World, given: Responses, *, rng: np.random.Generator) -> Outcomes:
    """One draw of what happens; its mean is `expect`."""
    behaviour, shape = world.settings.behaviour, given.click.shape
    examined = rng.random(shape) < given.examination
    click = examined & (rng.random(shape) < given.click)
    dismissed = examined & (rng.random(shape) < given.dismissal)
    surveyed = rng.random(shape) < behaviour.survey_rate
    num_clicks, num_surveys = int(click.sum()), int(surveyed.sum())
    like = np.zeros(shape)
    like[click] = rng.random(num_clicks) < given.like[click]
    watch_time_s = np.zeros(shape)
    location = given.watch_location[click]
    watch_time_s[click] = np.exp(location + behaviour.watch_spread * rng.normal(size=num_clicks))
    rating = np.full(shape, np.nan)
    opinion = behaviour.rating_mean + behaviour.rating_slope * given.satisfaction[surveyed]
    opinion += behaviour.rating_noise * rng.normal(size=num_surveys)
    rating[surveyed] = np.clip(np.round(opinion), 1, 5)
    return Outcomes(
        click=click.astype(np.float64),
        watch_time_s=watch_time_s,
        like=like,
        dismissed=dismissed.astype(np.float64),
        rating=rating,
        surveyed=surveyed.astype(np.float64),
    )


def no_novelty(requests: Requests) -> FloatArray:
    """Nothing is new, [R]."""
    return np.zeros(len(requests.ids))


def unchanged_clicks(requests: Requests) -> NDArray[np.float64]:
    """Clicks as they are, [R]."""
    return np.ones(len(requests.ids))
