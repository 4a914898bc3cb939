"""Co-visitation: items that the same users watched shortly before or after the query item.

`N` interactions, `P` pairs of interactions, `V` items of the vocabulary (with the unknown one).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from ranker.candidates.protocol import (
    UNKNOWN_TIME_MS,
    Candidates,
    IntArray,
    Interactions,
    Mask,
    Requests,
    ScoreArray,
    check_requests,
    rank_within,
    select_fittable,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CovisitationGenerator:
    """Each item's nearest neighbours, in compressed rows.

    Item i's neighbours stand at ``offsets[i]:offsets[i + 1]`` of the other two arrays, nearest
    first, ties by item index. With w the interactions' weights and d the gap of two interactions
    in their user's sequence,

        similarity(i, j) = sum over pairs of sqrt(w_i w_j) distance_decay^(d - 1)
                           / (sqrt(sum of i's weights * sum of j's weights) + shrinkage)

    Pairs of one gap and one direction add at most 1 (Cauchy-Schwarz). Watching one item twice is
    no pair; interactions of weight 0 are left out before gaps are counted.

    Attributes:
        offsets: [V + 1].
        neighbour_index: flat item indices.
        neighbour_score: flat similarities.
        as_of_ms: the moment of the state; no earlier request is served.
    """

    offsets: IntArray
    neighbour_index: IntArray
    neighbour_score: ScoreArray
    as_of_ms: int
    name: str = "covisitation"

    @classmethod
    def fit(
        cls,
        interactions: Interactions,
        *,
        as_of_ms: int,
        max_gap: int,
        max_gap_s: float,
        distance_decay: float,
        shrinkage: float,
        num_neighbours: int,
    ) -> Self:
        """Count pairs and keep each item's nearest ``num_neighbours``.

        Args:
            interactions: all before ``as_of_ms``.
            as_of_ms: the moment of the state.
            max_gap: how many positions of the user's sequence two interactions may lie apart.
            max_gap_s: how many seconds, where both times are known; may be infinite.
            distance_decay: in (0, 1]; 1 counts all gaps alike.
            shrinkage: >= 0; the larger, the more evidence a rare pair needs.
            num_neighbours: kept for each item.

        Raises:
            ValueError: an interaction at or after ``as_of_ms``; ``order`` that does not ascend
                with time within a user; an argument out of its range.
        """
        _check_arguments(
            max_gap=max_gap,
            max_gap_s=max_gap_s,
            distance_decay=distance_decay,
            shrinkage=shrinkage,
            num_neighbours=num_neighbours,
        )
        known = select_fittable(interactions, as_of_ms=as_of_ms)
        watched = _sort_sequences(known.take(known.weight > 0))
        pairs = _count_pairs(
            watched, max_gap=max_gap, max_gap_s=max_gap_s, distance_decay=distance_decay
        )
        popularity = np.bincount(watched.item_index, weights=watched.weight)  # [V]
        norm = np.sqrt(popularity[pairs.low] * popularity[pairs.high]) + shrinkage
        similarity = (pairs.count / norm).astype(np.float32)
        # each pair speaks for both of its items; in this order an item's neighbours ascend, and the
        # stable sort leaves ties so
        item = np.concatenate([pairs.high, pairs.low])
        neighbour = np.concatenate([pairs.low, pairs.high])
        score = np.concatenate([similarity, similarity])
        nearest = np.lexsort((-score, item))
        nearest = nearest[rank_within(item[nearest]) <= num_neighbours]
        num_by_item = np.bincount(item[nearest], minlength=len(popularity))
        return cls(
            offsets=np.concatenate([[0], np.cumsum(num_by_item)]).astype(np.int64),
            neighbour_index=neighbour[nearest],
            neighbour_score=score[nearest],
            as_of_ms=as_of_ms,
        )

    def generate(self, requests: Requests, *, num_candidates: int) -> Candidates:
        """The query item's neighbours; nothing where it is missing, unknown or without any.

        Raises:
            ValueError: ``num_candidates`` < 1, or a request before ``as_of_ms``.
        """
        check_requests(requests, as_of_ms=self.as_of_ms, num_candidates=num_candidates)
        num_known = len(self.offsets) - 1
        # items newer than the state share the unknown item's empty row (or the end, if all do)
        query = np.where(requests.query_item_index < num_known, requests.query_item_index, 0)
        start = self.offsets[query]  # [R]
        end = self.offsets[np.minimum(query + 1, num_known)]
        num_by_request = np.minimum(end - start, num_candidates)
        request = np.repeat(np.arange(requests.num_rows, dtype=np.int64), num_by_request)
        rank = rank_within(request)
        row = start[request] + rank - 1
        return Candidates(
            request=request,
            item_index=self.neighbour_index[row],
            rank=rank,
            score=self.neighbour_score[row],
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _PairCounts:
    """Unordered pairs of different items, low < high, each once, sorted, with decayed counts."""

    low: IntArray
    high: IntArray
    count: npt.NDArray[np.float64]


def _count_pairs(
    watched: Interactions, *, max_gap: int, max_gap_s: float, distance_decay: float
) -> _PairCounts:
    stride = int(watched.item_index.max(initial=0)) + 1
    root_weight = np.sqrt(watched.weight.astype(np.float64))
    keys = [np.empty(0, dtype=np.int64)]
    counts = [np.empty(0, dtype=np.float64)]
    for gap in range(1, min(max_gap, watched.num_rows - 1) + 1):
        left, right = slice(None, -gap), slice(gap, None)
        rows = np.flatnonzero(
            (watched.user_index[left] == watched.user_index[right])
            & (watched.item_index[left] != watched.item_index[right])
            & _close_in_time(watched.time_ms[left], watched.time_ms[right], max_gap_s=max_gap_s)
        )
        first, second = watched.item_index[rows], watched.item_index[rows + gap]
        keys.append(np.minimum(first, second) * stride + np.maximum(first, second))
        counts.append(root_weight[rows] * root_weight[rows + gap] * distance_decay ** (gap - 1))
    unique_keys, inverse = np.unique(np.concatenate(keys), return_inverse=True)  # [pairs], [P]
    count = np.bincount(inverse, weights=np.concatenate(counts)).astype(np.float64)  # [pairs]
    return _PairCounts(low=unique_keys // stride, high=unique_keys % stride, count=count)


def _close_in_time(earlier_ms: IntArray, later_ms: IntArray, *, max_gap_s: float) -> Mask:
    # within a user unknown times come first; rows of two users are left out by the caller
    unknown: Mask = earlier_ms == UNKNOWN_TIME_MS
    gap_ms = later_ms - np.where(unknown, later_ms, earlier_ms)
    is_close: Mask = unknown | (gap_ms <= max_gap_s * 1000)
    return is_close


def _sort_sequences(interactions: Interactions) -> Interactions:
    columns = (interactions.item_index, interactions.time_ms, interactions.order)
    watched = interactions.take(np.lexsort((*columns, interactions.user_index)))
    backwards = (watched.user_index[1:] == watched.user_index[:-1]) & (
        watched.time_ms[1:] < watched.time_ms[:-1]
    )
    if backwards.any():
        row = int(backwards.argmax())
        raise ValueError(
            f"interactions: column 'order' must ascend with time within a user, got user_index "
            f"{watched.user_index[row]} with time_ms {watched.time_ms[row]} at order "
            f"{watched.order[row]} before {watched.time_ms[row + 1]} at order "
            f"{watched.order[row + 1]}; number each user's rows by time, unknown times first"
        )
    return watched


def _check_arguments(
    *,
    max_gap: int,
    max_gap_s: float,
    distance_decay: float,
    shrinkage: float,
    num_neighbours: int,
) -> None:
    if max_gap < 1:
        raise ValueError(f"covisitation: max_gap must be >= 1, got {max_gap}")
    if not max_gap_s >= 0:
        raise ValueError(f"covisitation: max_gap_s must be >= 0, got {max_gap_s}")
    if not 0 < distance_decay <= 1:
        raise ValueError(f"covisitation: distance_decay must be in (0, 1], got {distance_decay}")
    if not (math.isfinite(shrinkage) and shrinkage >= 0):
        raise ValueError(f"covisitation: shrinkage must be finite and >= 0, got {shrinkage}")
    if num_neighbours < 1:
        raise ValueError(f"covisitation: num_neighbours must be >= 1, got {num_neighbours}")
