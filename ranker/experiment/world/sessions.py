"""Sessions of a day, their requests and candidate lists: what exists before any policy acts.

A user's requests of a day are the same whatever he was shown before; what he was shown decides only
whether he is active on that day at all. So both arms of an experiment, and any counterfactual, can
be asked about the very same requests.

Shapes: ``S`` sessions, ``R`` requests, ``C`` candidates of a request, ``T`` topics, ``N`` items
published by the day.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ranker.experiment.world.items import Catalogue
from ranker.experiment.world.randomness import FloatArray, IntArray, Source, generator, uniforms
from ranker.experiment.world.settings import MAX_REQUESTS_PER_DAY
from ranker.experiment.world.world import World

CHUNK_USERS = 1_024  # fixed: results don't depend on who works on which chunk
DAY_S = 86_400
SESSION_S = 3_600


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Requests:
    """One entry a request, by user and in the order in which he makes them within a session.

    Attributes:
        ids: unique in the world; (day, user, number) as one integer, [R].
        users: [R].
        times_s: since the day began, [R].
        devices: index into the settings' devices, [R].
        query_topics: what the session is in the mood for, [R].
        query_places: the query item's place in the catalogue's order of that topic, [R].
        query_items: the item being watched when the request is made, [R].
        taste: the user's, mood included, [R, T].
    """

    ids: IntArray
    users: IntArray
    times_s: IntArray
    devices: IntArray
    query_topics: IntArray
    query_places: IntArray
    query_items: IntArray
    taste: FloatArray

    def where(self, kept: NDArray[np.bool_]) -> Requests:
        """Some of the requests."""
        return Requests(
            ids=self.ids[kept],
            users=self.users[kept],
            times_s=self.times_s[kept],
            devices=self.devices[kept],
            query_topics=self.query_topics[kept],
            query_places=self.query_places[kept],
            query_items=self.query_items[kept],
            taste=self.taste[kept],
        )


def num_chunks(world: World) -> int:
    """How many chunks of users there are."""
    return -(-world.settings.num_users // CHUNK_USERS)


def users_of_chunk(world: World, chunk: int) -> slice:
    """The users of a chunk."""
    start = chunk * CHUNK_USERS
    return slice(start, min(start + CHUNK_USERS, world.settings.num_users))


def draw_requests(world: World, catalogue: Catalogue, *, chunk: int) -> Requests:
    """All requests that the users of ``chunk`` make on the catalogue's day if they are active."""
    settings, day = world.settings, catalogue.day
    rng = generator(settings.seed, Source.SESSIONS, day=day, chunk=chunk)
    span = users_of_chunk(world, chunk)
    length = settings.activity.requests_per_session
    further = rng.poisson(world.users.further_requests[span])
    num_requests = 1 + np.minimum(further, MAX_REQUESTS_PER_DAY - 1)
    num_sessions = -(-num_requests // length)
    session_users = np.repeat(np.arange(span.start, span.stop), num_sessions)  # [S]
    taste = world.users.taste[session_users]  # [S, T]
    topics = np.argmax(taste + rng.gumbel(size=taste.shape), axis=1)  # [S]
    device_logits = world.users.device_logits[session_users]
    devices = np.argmax(device_logits + rng.gumbel(size=device_logits.shape), axis=1)  # [S]
    taste[np.arange(len(topics)), topics] += settings.behaviour.mood
    starts_s = rng.random(len(topics)) * (DAY_S - SESSION_S)  # [S]

    places = np.repeat(np.arange(len(num_requests)), num_requests)  # [R] of the user in the chunk
    numbers = np.arange(len(places)) - (np.cumsum(num_requests) - num_requests)[places]  # [R]
    sessions = (np.cumsum(num_sessions) - num_sessions)[places] + numbers // length  # [R]
    users = span.start + places
    progress = (numbers % length + rng.random(len(users))) / length
    # The most popular twentieth of a topic's items is watched by over a fifth of its users.
    watched = rng.random(len(users)) ** 2 * (catalogue.order.shape[1] // settings.num_topics)
    query_topics, query_places = topics[sessions], watched.astype(np.int64)
    return Requests(
        ids=(day * settings.num_users + users) * MAX_REQUESTS_PER_DAY + numbers,
        users=users,
        times_s=(starts_s[sessions] + SESSION_S * progress).astype(np.int64),
        devices=devices[sessions],
        query_topics=query_topics,
        query_places=query_places,
        query_items=catalogue.order[query_topics, query_places],
        taste=taste[sessions],
    )


def draw_candidates(world: World, catalogue: Catalogue, requests: Requests) -> IntArray:
    """The candidate list of each request: distinct items, never the query item, [R, C].

    Candidate k is drawn evenly from the k-th slice of the order by popularity × topic match.
    """
    slots = np.arange(len(catalogue.slices) - 1)[None, :]
    chance = uniforms(
        world.settings.seed, Source.CANDIDATES, requests=requests.ids, items=slots
    )  # [R, C]
    chance *= np.diff(catalogue.slices)
    places = chance.astype(np.int64)
    places += catalogue.slices[:-1]
    places += places >= requests.query_places[:, None]  # the order without the query item
    places += (requests.query_topics * catalogue.order.shape[1])[:, None]
    return catalogue.order.ravel()[places]
