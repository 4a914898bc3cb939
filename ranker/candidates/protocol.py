"""What every candidate generator takes and gives: flat columns, checked where they come in.

`N` interactions, `R` requests, `M` candidates. Indices are vocabulary indices; 0 means unknown (or
none) and is never learned from and never proposed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
RankArray = npt.NDArray[np.int32]
ScoreArray = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

UNKNOWN_TIME_MS = int(np.iinfo(np.int64).min)  # before every known time


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Interactions:
    """Who watched what, in any row order.

    Attributes:
        user_index: [N].
        item_index: [N].
        time_ms: [N], of the impression; `UNKNOWN_TIME_MS` for earlier history without times.
        order: [N], ascending with time within a user (earlier history comes first).
        weight: [N], how much the feedback counts, finite and >= 0.
    """

    user_index: IntArray
    item_index: IntArray
    time_ms: IntArray
    order: IntArray
    weight: ScoreArray

    def __post_init__(self) -> None:
        indices = {"user_index": self.user_index, "item_index": self.item_index}
        integers = {**indices, "time_ms": self.time_ms, "order": self.order}
        _require_columns("interactions", integers, dtype=np.dtype(np.int64))
        _require_columns("interactions", {"weight": self.weight}, dtype=np.dtype(np.float32))
        _require_equal_lengths("interactions", {**integers, "weight": self.weight})
        _require_indices("interactions", indices)
        bad = ~(np.isfinite(self.weight) & (self.weight >= 0))
        if bad.any():
            row = int(bad.argmax())
            raise ValueError(
                f"interactions: column 'weight' must be finite and >= 0, got {self.weight[row]} "
                f"in row {row}; leave out interactions that should not count"
            )

    @property
    def num_rows(self) -> int:
        """N."""
        return len(self.item_index)

    def take(self, rows: IntArray | Mask) -> Interactions:
        """The chosen rows, by position or by mask."""
        return Interactions(
            user_index=self.user_index[rows],
            item_index=self.item_index[rows],
            time_ms=self.time_ms[rows],
            order=self.order[rows],
            weight=self.weight[rows],
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Requests:
    """Moments at which a user needs a slate; a request's code is its row, 0..R-1.

    Attributes:
        user_index: [R].
        query_item_index: [R], the item being watched; 0 where there is none.
        time_ms: [R].
    """

    user_index: IntArray
    query_item_index: IntArray
    time_ms: IntArray

    def __post_init__(self) -> None:
        indices = {"user_index": self.user_index, "query_item_index": self.query_item_index}
        columns = {**indices, "time_ms": self.time_ms}
        _require_columns("requests", columns, dtype=np.dtype(np.int64))
        _require_equal_lengths("requests", columns)
        _require_indices("requests", indices)

    @property
    def num_rows(self) -> int:
        """R."""
        return len(self.user_index)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidates:
    """One source's candidates, one row per (request, item), sorted by request, then rank.

    Attributes:
        request: [M], the request's code.
        item_index: [M], >= 1.
        rank: [M], 1, 2, ... within a request.
        score: [M], in the source's own unit; comparable within a source only.
    """

    request: IntArray
    item_index: IntArray
    rank: RankArray
    score: ScoreArray

    def __post_init__(self) -> None:
        integers = {"request": self.request, "item_index": self.item_index}
        _require_columns("candidates", integers, dtype=np.dtype(np.int64))
        _require_columns("candidates", {"rank": self.rank}, dtype=np.dtype(np.int32))
        _require_columns("candidates", {"score": self.score}, dtype=np.dtype(np.float32))
        _require_equal_lengths("candidates", {**integers, "rank": self.rank, "score": self.score})
        _require_indices("candidates", {"request": self.request})
        if (self.item_index < 1).any():
            row = int((self.item_index < 1).argmax())
            raise ValueError(
                f"candidates: column 'item_index' must be >= 1, got {self.item_index[row]} in row "
                f"{row}; unknown items can't be proposed"
            )
        if (np.diff(self.request) < 0).any() or (self.rank != rank_within(self.request)).any():
            raise ValueError(
                "candidates: expected rows sorted by request with ranks 1, 2, ... in each; "
                "sort by (request, rank) and number the ranks without gaps"
            )

    @property
    def num_rows(self) -> int:
        """M."""
        return len(self.request)


class CandidateGenerator(Protocol):
    """Proposes items for requests; fitted on interactions before a stated moment."""

    @property
    def name(self) -> str:
        """What its columns are called in the pooled lists."""
        ...

    def generate(self, requests: Requests, *, num_candidates: int) -> Candidates:
        """At most ``num_candidates`` items for each request; the same input, the same bytes.

        Raises:
            ValueError: ``num_candidates`` < 1, or a request older than the generator's state.
        """
        ...


def rank_within(request: IntArray) -> RankArray:
    """Number the rows of each request 1, 2, ...; ``request`` [M] must be sorted."""
    rows = np.arange(len(request), dtype=np.int64)
    is_first = np.ones(len(request), dtype=np.bool_)
    is_first[1:] = request[1:] != request[:-1]
    first_row = np.maximum.accumulate(np.where(is_first, rows, 0))
    return (rows - first_row + 1).astype(np.int32)


def select_fittable(interactions: Interactions, *, as_of_ms: int) -> Interactions:
    """Check that nothing is from ``as_of_ms`` or later, and leave out unknown users and items.

    Raises:
        ValueError: an interaction at or after ``as_of_ms``.
    """
    late = interactions.time_ms >= as_of_ms
    if late.any():
        row = int(late.argmax())
        raise ValueError(
            f"interactions: state newer than its as_of: expected time_ms < {as_of_ms}, got "
            f"{interactions.time_ms[row]} in row {row} (such rows: {int(late.sum()):,}); "
            "cut the interactions at as_of_ms or state a later one"
        )
    return interactions.take((interactions.user_index > 0) & (interactions.item_index > 0))


def check_requests(requests: Requests, *, as_of_ms: int, num_candidates: int) -> None:
    """Reject requests older than a generator's state, which would show them the future.

    Raises:
        ValueError: a request before ``as_of_ms``, or ``num_candidates`` < 1.
    """
    require_at_least_one(num_candidates)
    early = requests.time_ms < as_of_ms
    if early.any():
        row = int(early.argmax())
        raise ValueError(
            f"requests: state newer than the request: expected time_ms >= {as_of_ms}, got "
            f"{requests.time_ms[row]} in row {row} (such rows: {int(early.sum()):,}); "
            "fit the generator with an as_of_ms at or before the first request"
        )


def require_at_least_one(num_candidates: int) -> None:
    """Raise ValueError where ``num_candidates`` leaves no room for a candidate."""
    if num_candidates < 1:
        raise ValueError(f"candidates: num_candidates must be >= 1, got {num_candidates}")


def _require_columns(
    table: str, columns: Mapping[str, npt.NDArray[np.generic]], *, dtype: np.dtype[np.generic]
) -> None:
    for name, values in columns.items():
        if values.ndim != 1 or values.dtype != dtype:
            raise ValueError(
                f"{table}: column {name!r} must be a flat array of {dtype}, got {values.dtype} "
                f"of shape {values.shape}; convert it with .astype"
            )


def _require_equal_lengths(table: str, columns: Mapping[str, npt.NDArray[np.generic]]) -> None:
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{table}: columns must have equal lengths, got {lengths}")


def _require_indices(table: str, columns: Mapping[str, IntArray]) -> None:
    for name, values in columns.items():
        if (values < 0).any():
            row = int((values < 0).argmax())
            raise ValueError(
                f"{table}: column {name!r} must be >= 0, got {values[row]} in row {row}; "
                "indices count from 0"
            )
