"""Time-decayed popularity: what many people watched lately, the same list for every request."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np

from ranker.candidates.protocol import (
    UNKNOWN_TIME_MS,
    Candidates,
    IntArray,
    Interactions,
    Requests,
    ScoreArray,
    check_requests,
    select_fittable,
)

MS_PER_DAY = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PopularityGenerator:
    """The most popular items as of one moment.

    Attributes:
        item_index: [I], most popular first; ties by item index.
        score: [I], sum over the item's interactions of weight * 2^(-age / half-life).
        as_of_ms: the moment to which ages are counted; no earlier request is served.
    """

    item_index: IntArray
    score: ScoreArray
    as_of_ms: int
    name: str = "popularity"

    @classmethod
    def fit(
        cls,
        interactions: Interactions,
        *,
        as_of_ms: int,
        half_life_days: float,
        unknown_age_days: float,
    ) -> Self:
        """Add up each item's decayed weights; items whose weights are all 0 are left out.

        Args:
            interactions: all before ``as_of_ms``.
            as_of_ms: the moment of the state.
            half_life_days: after so many days an interaction counts half.
            unknown_age_days: the age assumed for interactions of unknown time.

        Raises:
            ValueError: an interaction at or after ``as_of_ms``; a half-life that is not positive
                and finite; an assumed age that is negative or not finite.
        """
        if not (math.isfinite(half_life_days) and half_life_days > 0):
            raise ValueError(
                f"popularity: half_life_days must be positive and finite, got {half_life_days}"
            )
        if not (math.isfinite(unknown_age_days) and unknown_age_days >= 0):
            raise ValueError(
                f"popularity: unknown_age_days must be finite and >= 0, got {unknown_age_days}"
            )
        known = select_fittable(interactions, as_of_ms=as_of_ms)
        has_time = known.time_ms != UNKNOWN_TIME_MS
        # the sentinel is replaced before subtracting: int64 would overflow
        age_ms = as_of_ms - np.where(has_time, known.time_ms, as_of_ms)
        age_days = np.where(has_time, age_ms / MS_PER_DAY, unknown_age_days)
        decayed = known.weight * np.exp2(-age_days / half_life_days)
        score = np.bincount(known.item_index, weights=decayed).astype(np.float32)
        total_weight = np.bincount(known.item_index, weights=known.weight)
        # by weight, not by score: a very old item's score may underflow to 0
        item_index = np.flatnonzero(total_weight > 0)
        item_index = item_index[np.lexsort((item_index, -score[item_index]))].astype(np.int64)
        return cls(item_index=item_index, score=score[item_index], as_of_ms=as_of_ms)

    def generate(self, requests: Requests, *, num_candidates: int) -> Candidates:
        """The first ``num_candidates`` items, repeated for each request.

        Raises:
            ValueError: ``num_candidates`` < 1, or a request before ``as_of_ms``.
        """
        check_requests(requests, as_of_ms=self.as_of_ms, num_candidates=num_candidates)
        num_requests = requests.num_rows
        num_items = min(num_candidates, len(self.item_index))
        ranks = np.arange(1, num_items + 1, dtype=np.int32)
        return Candidates(
            request=np.repeat(np.arange(num_requests, dtype=np.int64), num_items),
            item_index=np.tile(self.item_index[:num_items], num_requests),
            rank=np.tile(ranks, num_requests),
            score=np.tile(self.score[:num_items], num_requests),
        )
