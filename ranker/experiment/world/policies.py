"""Rankings of the world's candidate lists: known ones, and anybody's by a file.

Every policy gives scores; a slate is drawn from them by Plackett–Luce: the next rank shows item i
of those left with probability exp(score_i / temperature) / Σ_j exp(score_j / temperature), the
same as sorting by score / temperature plus Gumbel noise (Yellott 1977). At temperature 0 it is the
order of scores, ties by item.

Shapes: ``R`` requests, ``C`` candidates of each, ``K`` shown ones, ``N`` rows of a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.special import ndtri

from ranker.experiment.world.behaviour import affinity
from ranker.experiment.world.items import Catalogue
from ranker.experiment.world.randomness import FloatArray, IntArray, Source, uniforms
from ranker.experiment.world.sessions import Requests
from ranker.experiment.world.world import World


class WorldPolicy(Protocol):
    """A rule from candidate lists to slates; its temperature says how random it is."""

    @property
    def name(self) -> str:
        """What reports call it."""
        ...

    @property
    def temperature(self) -> float:
        """Of Plackett–Luce; 0 = deterministic."""
        ...

    def scores(
        self, world: World, catalogue: Catalogue, requests: Requests, candidates: IntArray
    ) -> FloatArray:
        """Score the candidates [R, C]; minus infinity is never shown."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownPolicy:
    """Ranks by a weighted sum of what only the world knows, and noise.

    Attributes:
        engagement: weight of the click logit.
        satisfaction: weight of the latent satisfaction.
        popularity: weight of the item's popularity.
        noise: standard deviation of an error of each item in each request. Policies of one world
            share the errors up to this factor, so of two otherwise alike the one with less is
            better.
        temperature: see `WorldPolicy`.
    """

    name: str
    engagement: float = 0.0
    satisfaction: float = 0.0
    popularity: float = 0.0
    noise: float = 0.0
    temperature: float = 0.0

    def scores(
        self, world: World, catalogue: Catalogue, requests: Requests, candidates: IntArray
    ) -> FloatArray:
        """See `WorldPolicy.scores`."""
        behaviour = world.settings.behaviour
        by_item = (
            self.engagement * catalogue.click_logit
            + self.satisfaction * world.items.satisfaction
            + self.popularity * world.items.popularity
        )
        scores = by_item.take(candidates)
        taste_weight = (
            self.engagement * behaviour.click_taste
            + self.satisfaction * behaviour.satisfaction_taste
        )
        if taste_weight:
            scores += taste_weight * affinity(world, requests, candidates)
        if self.noise:
            error = uniforms(
                world.settings.seed, Source.POLICY_NOISE, requests=requests.ids, items=candidates
            )
            scores += self.noise * ndtri(error)
        return scores


def random_policy() -> KnownPolicy:
    """Every order is equally likely."""
    return KnownPolicy(name="random", temperature=1.0)


def popularity_policy() -> KnownPolicy:
    """The most popular first, the same for all."""
    return KnownPolicy(name="popularity", popularity=1.0)


def engagement_oracle() -> KnownPolicy:
    """The likeliest click first: the best a ranker of clicks can become."""
    return KnownPolicy(name="engagement oracle", engagement=1.0)


def satisfaction_oracle() -> KnownPolicy:
    """The most satisfying first."""
    return KnownPolicy(name="satisfaction oracle", satisfaction=1.0)


def logging_policy(world: World) -> KnownPolicy:
    """What wrote the world's log: Plackett–Luce on the click logit, with known propensities."""
    return KnownPolicy(
        name="logging", engagement=1.0, temperature=world.settings.logging_temperature
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FilePolicy:
    """Anybody's ranker: a score for items of the world's requests, the highest first.

    Attributes:
        keys: request and item as one ascending integer, see `file_policy`, [N].
        values: scores, [N].
        num_items: the world's.
    """

    name: str
    keys: IntArray
    values: FloatArray
    num_items: int
    temperature: float = 0.0

    def scores(
        self, world: World, catalogue: Catalogue, requests: Requests, candidates: IntArray
    ) -> FloatArray:
        """See `WorldPolicy.scores`.

        Raises:
            ValueError: fewer candidates of a request have a score than a slate shows.
        """
        wanted = requests.ids[:, None] * self.num_items + candidates
        places = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        scores = np.where(self.keys[places] == wanted, self.values[places], -np.inf)
        num_scored = np.isfinite(scores).sum(axis=1)  # [R]
        short = np.flatnonzero(num_scored < world.settings.slate_size)
        if len(short):
            raise ValueError(
                f"policy {self.name!r}: request {requests.ids[short[0]]} has scores for "
                f"{num_scored[short[0]]} of its candidates, a slate shows "
                f"{world.settings.slate_size} ({len(short)} of {len(num_scored)} requests seen are "
                f"short, day {catalogue.day}); score the candidate lists that the world writes"
            )
        return np.asarray(scores)


def file_policy(
    name: str, *, requests: IntArray, items: IntArray, scores: FloatArray, num_items: int
) -> FilePolicy:
    """Turn rows of a file (minus the rank serves as a score) into a policy.

    Args:
        name: what reports call it.
        requests, items, scores: one entry a row, [N].
        num_items: the world's.

    Raises:
        ValueError: no rows, different lengths, scores not finite, an unknown item, or an item
            twice in a request.
    """
    if not 0 < len(requests) == len(items) == len(scores):
        raise ValueError(
            f"policy {name!r}: expected as many requests as items and scores, at least one, got "
            f"{len(requests)}, {len(items)} and {len(scores)}"
        )
    num_bad = int(np.count_nonzero(~np.isfinite(scores)))
    if num_bad:
        raise ValueError(
            f"policy {name!r}: {num_bad} of {len(scores)} scores are not finite; leave out what "
            "must not be shown"
        )
    if items.min() < 0 or items.max() >= num_items:
        raise ValueError(
            f"policy {name!r}: items must be in 0..{num_items - 1}, got {items.min()} to "
            f"{items.max()}"
        )
    keys = requests.astype(np.int64) * num_items + items
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    twice = np.flatnonzero(keys[1:] == keys[:-1])
    if len(twice):
        request, item = divmod(int(keys[twice[0]]), num_items)
        raise ValueError(
            f"policy {name!r}: {len(twice):,} of {len(keys):,} rows repeat an item of a request, "
            f"first item {item} of request {request}; drop duplicates"
        )
    return FilePolicy(
        name=name, keys=keys, values=scores[order].astype(np.float64), num_items=num_items
    )


def slate_orders(
    world: World,
    policy: WorldPolicy,
    *,
    requests: Requests,
    candidates: IntArray,
    scores: FloatArray,
) -> IntArray:
    """Order the candidates: places in each request's list, the slate's first, [R, C]."""
    if policy.temperature == 0:
        return np.asarray(np.lexsort((candidates, -scores), axis=1))
    luck = uniforms(world.settings.seed, Source.SLATES, requests=requests.ids, items=candidates)
    # log(-log u) is minus Gumbel noise.
    keys = np.log(-np.log(luck)) - scores / policy.temperature
    return np.argsort(keys, axis=1)


def conditional_propensities(
    scores: FloatArray, *, orders: IntArray, temperature: float, slate_size: int
) -> FloatArray:
    """P(the item at each rank, given those above it); their product is the slate's, [R, K].

    Args:
        scores: of the candidates, [R, C].
        orders: see `slate_orders`, [R, C].
        temperature: of the policy; at 0 all are 1.
        slate_size: K.
    """
    if temperature == 0:
        return np.ones((len(scores), slate_size))
    logits = np.take_along_axis(scores, orders, axis=1) / temperature  # [R, C] by rank
    # From the last rank up: log Σ exp over the items not shown above.
    left = np.logaddexp.accumulate(logits[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(np.exp(logits[:, :slate_size] - left[:, :slate_size]))
