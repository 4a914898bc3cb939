"""From candidate lists to slates: what an arm of an experiment is.

Shapes: ``C`` candidates (rows of all lists), ``F`` features, ``S`` shown (rows of all slates).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ranker.experiment.assignment import IdArray, as_ids


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JudgedCandidates:
    """The candidate lists of many requests, one row a candidate, in any order.

    Attributes:
        requests: request id, [C].
        users: the request's user, [C].
        items: item id, at most once a request, [C].
        features: what the response model sees, NaN where missing, [C, F].
        feature_names: names of the F columns.
    """

    requests: IdArray
    users: IdArray
    items: IdArray
    features: NDArray[np.float32]
    feature_names: tuple[str, ...]

    def __post_init__(self) -> None:
        num_rows = len(self.requests)
        if num_rows == 0:
            raise ValueError("candidates: expected at least one candidate, got none")
        for name, values in (("users", self.users), ("items", self.items)):
            if len(values) != num_rows:
                raise ValueError(f"candidates: {len(values)} {name} for {num_rows} requests")
        check_features(self.features, names=self.feature_names, num_rows=num_rows, of="candidates")
        requests = codes_of(self.requests, name="candidates: requests")
        items = codes_of(self.items, name="candidates: items")
        users = codes_of(self.users, name="candidates: users")
        pairs = requests * (int(items.max()) + 1) + items
        if len(np.unique(pairs)) != num_rows:
            raise ValueError("candidates: an item is twice in one request's list; drop duplicates")
        if len(np.unique(requests * (int(users.max()) + 1) + users)) != int(requests.max()) + 1:
            raise ValueError("candidates: a request has candidates of two users; fix request ids")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slates:
    """Ordered lists, one row a shown item, sorted by request and rank.

    Attributes:
        candidates: index of the shown candidate among the C rows, [S].
        requests: code of its request, as given to the policy, [S].
        ranks: 1 is the top, [S].
        propensities: P(this item at this rank, given the ranks above), [S].
    """

    candidates: NDArray[np.int64]
    requests: NDArray[np.int64]
    ranks: NDArray[np.int64]
    propensities: NDArray[np.float64]


class Policy(Protocol):
    """A rule from candidate lists to slates."""

    @property
    def name(self) -> str:
        """What reports call the arm."""
        ...

    def slates(self, *, requests: NDArray[np.int64], items: IdArray, slate_size: int) -> Slates:
        """Choose and order up to ``slate_size`` candidates of each request.

        Args:
            requests: request code of each candidate, [C].
            items: item id of each candidate, [C].
            slate_size: a request with fewer candidates gets a shorter slate.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoredArm:
    """Shows the highest scores first; equal scores by item id, ascending.

    The scores may come from a bundle or from anybody's ranker.

    Attributes:
        scores: one finite number a candidate, in the order of the candidate lists, [C].
    """

    name: str
    scores: NDArray[np.float64]

    def __post_init__(self) -> None:
        num_bad = int(np.count_nonzero(~np.isfinite(self.scores)))
        if num_bad:
            raise ValueError(
                f"arm {self.name!r}: {num_bad} of {len(self.scores)} scores are not finite; "
                "give candidates that can't be scored a low score or drop them from both arms"
            )

    def slates(self, *, requests: NDArray[np.int64], items: IdArray, slate_size: int) -> Slates:
        """See `Policy.slates`.

        Raises:
            ValueError: lengths differ, or ``slate_size`` below 1.
        """
        if slate_size < 1:
            raise ValueError(f"slate_size must be at least 1, got {slate_size}")
        if not len(self.scores) == len(requests) == len(items):
            raise ValueError(
                f"arm {self.name!r}: {len(self.scores)} scores and {len(items)} items for "
                f"{len(requests)} candidates; expected one of each a candidate"
            )
        # lexsort sorts by its last key first.
        order = np.lexsort((codes_of(items, name="items"), -self.scores, requests))
        requests_in_order = requests[order]
        ranks = _place_in_group(requests_in_order) + 1
        kept = ranks <= slate_size
        return Slates(
            candidates=order[kept],
            requests=requests_in_order[kept],
            ranks=ranks[kept],
            propensities=np.ones(int(np.count_nonzero(kept))),
        )


def codes_of(ids: IdArray, *, name: str) -> NDArray[np.int64]:
    """Number ``ids`` from 0 in ascending order: equal ids get equal codes.

    Raises:
        ValueError: ids neither integers nor strings.
    """
    codes: NDArray[np.int64] = np.unique(as_ids(ids, name=name), return_inverse=True)[1]
    return codes


def check_features(
    features: NDArray[np.float32], *, names: tuple[str, ...], num_rows: int, of: str
) -> None:
    """Check shape and values of a feature matrix [N, F]; NaN is allowed.

    Raises:
        ValueError: another shape than (``num_rows``, number of ``names``), or infinite values.
    """
    if features.shape != (num_rows, len(names)):
        raise ValueError(
            f"{of}: expected features of shape {(num_rows, len(names))}, got {features.shape}"
        )
    infinite = np.isinf(features).any(axis=0)
    if infinite.any():
        first = names[int(np.argmax(infinite))]
        raise ValueError(f"{of}: feature {first!r} has infinite values; use NaN for missing")


def _place_in_group(sorted_groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, 2, ... within each run of equal values."""
    places = np.arange(len(sorted_groups))
    is_first = np.ones(len(sorted_groups), dtype=bool)
    is_first[1:] = sorted_groups[1:] != sorted_groups[:-1]
    return places - np.maximum.accumulate(np.where(is_first, places, 0))
