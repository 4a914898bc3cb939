"""Several sources' candidates become one candidate list a request, with what each source said.

`M` rows of one source, `U` distinct (request, item) pairs, `S` sources, `N` rows kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ranker.candidates.protocol import (
    Candidates,
    IntArray,
    Interactions,
    Mask,
    RankArray,
    Requests,
    ScoreArray,
    rank_within,
    require_at_least_one,
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CandidateLists:
    """One row per (request, item), sorted by request, the sources' best ranks first.

    Attributes:
        request: [N].
        item_index: [N].
        rank_by_source: source -> [N]; 0 where that source did not propose the item.
        score_by_source: source -> [N]; NaN where that source did not propose the item.
    """

    request: IntArray
    item_index: IntArray
    rank_by_source: Mapping[str, RankArray]
    score_by_source: Mapping[str, ScoreArray]

    @property
    def num_rows(self) -> int:
        """N."""
        return len(self.request)

    def to_arrow(self) -> pa.Table:
        """Columns request, item_index and, for each source, ``<source>_rank``, ``<source>_score``.

        Both are null where the source did not propose the item: a missing rank is no zero.
        """
        columns = {"request": pa.array(self.request), "item_index": pa.array(self.item_index)}
        for source, rank in self.rank_by_source.items():
            missing = rank == 0
            columns[f"{source}_rank"] = pa.array(rank, mask=missing)
            columns[f"{source}_score"] = pa.array(self.score_by_source[source], mask=missing)
        return pa.table(columns)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WatchedItems:
    """What not to propose again: to each request, what its user had watched before it."""

    requests: Requests
    interactions: Interactions

    def contain(self, *, request: IntArray, item_index: IntArray) -> Mask:
        """Whether the request's user watched the item before the request's time; [M] -> [M].

        Unknown users and items are never contained.

        Raises:
            ValueError: a request code that `requests` lacks.
        """
        num_requests = self.requests.num_rows
        if len(request) and request.max() >= num_requests:
            raise ValueError(
                f"pool: candidates for request {request.max()}, but the requests in exclude are "
                f"0..{num_requests - 1}; give the requests for which the candidates were generated"
            )
        known = (self.interactions.user_index > 0) & (self.interactions.item_index > 0)
        watched = self.interactions.take(known)
        stride = int(max(watched.item_index.max(initial=0), item_index.max(initial=0))) + 1
        key = watched.user_index * stride + watched.item_index
        earliest_first = np.lexsort((watched.time_ms, key))
        unique_key, first = np.unique(key[earliest_first], return_index=True)
        first_time_ms = watched.time_ms[earliest_first][first]
        if not len(unique_key):
            return np.zeros(len(request), dtype=np.bool_)
        wanted = self.requests.user_index[request] * stride + item_index
        row = np.minimum(np.searchsorted(unique_key, wanted), len(unique_key) - 1)
        is_earlier = first_time_ms[row] < self.requests.time_ms[request]
        contained: Mask = (unique_key[row] == wanted) & is_earlier
        return contained


def pool(
    candidates_by_source: Mapping[str, Candidates],
    *,
    num_candidates: int,
    exclude: WatchedItems | None = None,
) -> CandidateLists:
    """Unite the sources' candidates, best ranks first, until a request has ``num_candidates``.

    An item counts with its best rank over the sources; equal ranks go in the mapping's order, so
    the sources take turns. Excluded items are dropped first; ranks and scores stay what their
    source said.

    Raises:
        ValueError: no source, ``num_candidates`` < 1, or a source that proposes an item twice for
            one request.
    """
    require_at_least_one(num_candidates)
    if not candidates_by_source:
        raise ValueError("pool: expected at least one source of candidates, got none")
    kept = {s: _Proposed.keep(c, exclude=exclude) for s, c in candidates_by_source.items()}
    stride = 1 + max(int(proposed.item_index.max(initial=0)) for proposed in kept.values())
    keys = {s: proposed.request * stride + proposed.item_index for s, proposed in kept.items()}
    _require_no_duplicates(keys, stride=stride)
    key = np.unique(np.concatenate(list(keys.values())))  # [U]
    rows = {s: np.searchsorted(key, source_key) for s, source_key in keys.items()}  # [M] into [U]
    ranks = {s: np.zeros(len(key), dtype=np.int32) for s in kept}  # [U]
    scores = {s: np.full(len(key), np.nan, dtype=np.float32) for s in kept}  # [U]
    for source, proposed in kept.items():
        ranks[source][rows[source]] = proposed.rank
        scores[source][rows[source]] = proposed.score

    request = key // stride
    order = np.lexsort((_first_turn(np.stack(list(ranks.values()))), request))
    order = order[rank_within(request[order]) <= num_candidates]  # [N]
    return CandidateLists(
        request=request[order],
        item_index=(key % stride)[order],
        rank_by_source={source: rank[order] for source, rank in ranks.items()},
        score_by_source={source: score[order] for source, score in scores.items()},
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Proposed:
    """A source's candidates after exclusion: ranks as the source gave them, so with gaps."""

    request: IntArray
    item_index: IntArray
    rank: RankArray
    score: ScoreArray

    @classmethod
    def keep(cls, candidates: Candidates, *, exclude: WatchedItems | None) -> _Proposed:
        rows = np.ones(candidates.num_rows, dtype=np.bool_)
        if exclude is not None:
            rows = ~exclude.contain(request=candidates.request, item_index=candidates.item_index)
        return cls(
            request=candidates.request[rows],
            item_index=candidates.item_index[rows],
            rank=candidates.rank[rows],
            score=candidates.score[rows],
        )


def _first_turn(ranks: npt.NDArray[np.int32]) -> IntArray:
    """When a pair is first proposed if sources take turns: [S, U] -> [U], distinct in a request."""
    num_sources = len(ranks)
    source = np.arange(num_sources, dtype=np.int64)[:, None]  # [S, 1]
    turn = np.where(
        ranks > 0, ranks.astype(np.int64) * num_sources + source, np.iinfo(np.int64).max
    )
    return np.asarray(turn.min(axis=0), dtype=np.int64)


def _require_no_duplicates(keys: Mapping[str, IntArray], *, stride: int) -> None:
    for source, key in keys.items():
        unique_key, count = np.unique(key, return_counts=True)
        if len(unique_key) < len(key):
            first = int(unique_key[count > 1][0])
            raise ValueError(
                f"pool: source {source!r} proposes item {first % stride} more than once for "
                f"request {first // stride}; drop all but its best rank"
            )
