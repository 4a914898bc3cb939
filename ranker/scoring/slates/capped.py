"""Slates of which at most n items share a value, filled rank by rank.

Rows are sorted by request. `N` rows, `R` requests, `K` ranks. A group are the rows of a request
with one value.
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
NO_CODE = -1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cap:
    """At most ``most`` rows of a request with one value may be shown.

    Attributes:
        code: equal for equal values, `NO_CODE` where nothing is capped, [N].
    """

    code: IntArray
    most: int

    def groups(self, request: IntArray) -> IntArray:
        """One number for each request and value, `NO_CODE` without a value: [N]."""
        width = int(self.code.max(initial=0)) + 1
        return np.where(self.code < 0, NO_CODE, request * width + self.code)


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

    def __init__(self, request: IntArray, caps: Sequence[Cap], queued: IntArray) -> None:
        """Nothing has been shown.

        Args:
            request: of each row, [N].
            caps: on values.
            queued: the rows that are in a queue; others can't be shown.
        """
        self._shown = np.zeros(len(request), dtype=np.bool_)
        self._most = [cap.most for cap in caps]
        self._group, self._count, self._full = [], [], []
        for cap in caps:
            part = Cap(code=cap.code[queued], most=cap.most).groups(request[queued])
            distinct, numbers = np.unique(part, return_inverse=True)
            group = np.zeros(len(request), dtype=np.int64)
            group[queued] = numbers
            self._group.append(group)
            # Rows without a value are a group that is never full.
            self._count.append(np.where(distinct == NO_CODE, -len(request), 0))
            self._full.append(np.zeros(len(distinct), dtype=np.bool_))

    def is_over(self, rows: IntArray) -> Mask:
        """Whether ``rows`` were shown or are of a full group."""
        over = self._shown[rows]
        for group, full in zip(self._group, self._full, strict=True):
            over |= full[group[rows]]
        return over

    def show(self, rows: IntArray) -> None:
        """Show ``rows``, at most one a request."""
        self._shown[rows] = True
        for group, count, full, most in zip(
            self._group, self._count, self._full, self._most, strict=True
        ):
            # Added up: rows without a value are one group for all requests.
            np.add.at(count, group[rows], 1)
            full[group[rows]] = count[group[rows]] >= most


def fill(
    queues: Sequence[Queue], which: npt.NDArray[np.int8], *, request: IntArray, caps: Sequence[Cap]
) -> tuple[IntArray, IntArray]:
    """Fill the ranks one after the other from the head of a queue.

    Args:
        queues: each is used up.
        which: the queue that fills a rank, [R, K].
        request: of each row, [N].
        caps: what is left out as soon as its group is full.

    Returns:
        The row at each rank, and the one that was the head of the first queue then; -1 where the
        queue was empty: both [R, K].
    """
    queued = np.zeros(len(request), dtype=np.bool_)
    for queue in queues:
        queued[queue.rows] = True
    filling = Filling(request, caps, np.flatnonzero(queued))
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
    shown: IntArray,
    rank: npt.NDArray[np.int32],
    *,
    request: IntArray,
    caps: Sequence[Cap],
    size: int,
) -> IntArray:
    """The last rank at which each row could have been shown, given the slate: [N].

    A shown row's is its own rank; a row whose group is full after some rank, that rank; any
    other's is ``size``.

    Args:
        shown: rows of the slates, sorted by request, then rank, [M].
        rank: of each, 1 .. ``size``, [M].
        request: of each row, [N].
        caps: what the slates kept to.
        size: K.
    """
    last = np.full(len(request), size, dtype=np.int64)
    for cap in caps:
        groups = cap.groups(request)
        order = np.argsort(groups[shown], kind="stable")  # within a group still by rank
        order = order[groups[shown][order] != NO_CODE]
        fills = order[rank_within(groups[shown][order]) == cap.most]
        if len(fills):
            full = groups[shown[fills]]  # ascending
            place = np.minimum(np.searchsorted(full, groups), len(full) - 1)
            full_at = np.where(full[place] == groups, rank[fills][place], size)
            last = np.minimum(last, full_at)
    last[shown] = rank
    return last
