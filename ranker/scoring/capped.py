"""Slates of which at most n items share a value, filled rank by rank.

Rows are sorted by request. `N` rows, `R` requests, `K` ranks, `G` groups: the different values of
a request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ranker.candidates.protocol import rank_within

IntArray = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

MAX_STEPS = 16  # past so many rows that may not be shown, the queue is cleared of all of them
NO_GROUP = -1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cap:
    """At most ``most`` rows of a group may be shown.

    Attributes:
        group: 0 .. ``num_groups`` - 1, never of two requests, `NO_GROUP` where nothing is capped,
            [N].
    """

    group: IntArray
    num_groups: int
    most: int


def cap_of(request: IntArray, code: IntArray, *, most: int) -> Cap:
    """A cap on equal ``code`` [N] (-1: none) within each ``request`` [N], a number from 0."""
    capped = code >= 0
    pairs = request[capped] * (int(code.max(initial=0)) + 1) + code[capped]
    distinct, numbers = np.unique(pairs, return_inverse=True)
    group = np.full(len(code), NO_GROUP, dtype=np.int64)
    group[capped] = numbers
    return Cap(group=group, num_groups=len(distinct), most=most)


@dataclass(slots=True, kw_only=True)
class Queue:
    """The rows of each request in the order in which they would be shown, and how far it is.

    Attributes:
        rows: sorted by request, the next first.
        starts: where each request's begin, and how many there are: [R + 1].
    """

    rows: IntArray
    starts: IntArray
    _at: IntArray = field(init=False)  # [R]

    def __post_init__(self) -> None:
        self._at = self.starts[:-1].copy()

    def heads(self, filling: Filling) -> IntArray:
        """The next row of each request that may still be shown, -1 where there is none: [R]."""
        pending = np.flatnonzero(self._at < self.starts[1:])
        for _ in range(MAX_STEPS):
            pending = pending[filling.is_over(self.rows[self._at[pending]])]
            self._at[pending] += 1
            pending = pending[self._at[pending] < self.starts[1:][pending]]
            if not len(pending):
                break
        else:
            self._clear(filling)
        left = self._at < self.starts[1:]
        heads = np.full(len(left), -1, dtype=np.int64)
        heads[left] = self.rows[self._at[left]]
        return heads

    def _clear(self, filling: Filling) -> None:
        kept = ~filling.is_over(self.rows)
        self.starts = np.append(0, np.cumsum(kept))[self.starts]
        self.rows, self._at = self.rows[kept], self.starts[:-1].copy()


class Filling:
    """What has been shown so far, and which groups are full."""

    def __init__(self, num_rows: int, caps: Sequence[Cap]) -> None:
        self._shown = np.zeros(num_rows, dtype=np.bool_)
        self._caps = caps
        # One more than there are groups: `NO_GROUP` points at the last, which is never full.
        self._count = [np.zeros(cap.num_groups + 1, dtype=np.int64) for cap in caps]
        self._full = [np.zeros(cap.num_groups + 1, dtype=np.bool_) for cap in caps]

    def is_over(self, rows: IntArray) -> Mask:
        """Whether ``rows`` were shown or are of a full group."""
        over = self._shown[rows]
        for cap, full in zip(self._caps, self._full, strict=True):
            over |= full[cap.group[rows]]
        return over

    def show(self, rows: IntArray) -> None:
        """Show ``rows``, at most one a request."""
        self._shown[rows] = True
        for cap, count, full in zip(self._caps, self._count, self._full, strict=True):
            groups = cap.group[rows]
            groups = groups[groups != NO_GROUP]
            count[groups] += 1
            full[groups] = count[groups] >= cap.most


def fill(
    queues: Sequence[Queue], which: npt.NDArray[np.int8], *, caps: Sequence[Cap], num_rows: int
) -> tuple[IntArray, IntArray]:
    """Fill the ranks one after the other from the head of a queue.

    Args:
        queues: of all rows; each is used up.
        which: the queue that fills a rank, [R, K].
        caps: what is left out as soon as its group is full.
        num_rows: N.

    Returns:
        The row at each rank, and the one that was the head of the first queue then; -1 where no
        row was left: both [R, K].
    """
    filling = Filling(num_rows, caps)
    shown = np.full(which.shape, -1, dtype=np.int64)
    first = shown.copy()
    for rank in range(which.shape[1]):
        heads = np.stack([queue.heads(filling) for queue in queues])  # [queues, R]
        first[:, rank] = heads[0]
        shown[:, rank] = np.take_along_axis(heads, which[None, :, rank].astype(np.int64), axis=0)
        rows = shown[:, rank]
        if not (rows >= 0).any():
            break
        filling.show(rows[rows >= 0])
    return shown, first


def last_ranks(
    shown: IntArray, rank: npt.NDArray[np.int32], *, caps: Sequence[Cap], num_rows: int, size: int
) -> IntArray:
    """The last rank at which each row could have been shown, given the slate: [N].

    A shown row's is its own rank; a row whose group is full after some rank, that rank; any
    other's is ``size``.

    Args:
        shown: rows of the slates, sorted by request, then rank, [M].
        rank: of each, 1 .. ``size``, [M].
        caps: what the slates kept to.
        num_rows: N.
        size: K.
    """
    last = np.full(num_rows, size, dtype=np.int64)
    for cap in caps:
        full_at = np.full(cap.num_groups + 1, size, dtype=np.int64)
        group = cap.group[shown]
        order = np.argsort(group, kind="stable")  # within a group still by rank
        order = order[group[order] != NO_GROUP]
        fills = order[rank_within(group[order]) == cap.most]
        full_at[group[fills]] = rank[fills]
        last = np.minimum(last, full_at[cap.group])
    last[shown] = rank
    return last
