"""Lists of logged impressions, brought into other orders.

Shapes: `N` rows, `L` lists, `U` users, `C` vectors of score weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ranker.evaluation.metrics import FloatArray, IntArray

PAIR_CELLS = 2**22  # pairs compared at a time: some 4 MiB


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoggedLists:
    """Lists of at least two rows, sorted by user, list and item.

    Attributes:
        rows: [N], which of the caller's rows stands where.
        user_starts: [U], each user's first row in the sorted order.
        list_starts: [L], each list's first row in the sorted order.
        blocks: for every length n that occurs, the lists of that length as [L_n, n] sorted rows.
    """

    rows: IntArray
    user_starts: IntArray
    list_starts: IntArray
    blocks: tuple[IntArray, ...]

    @property
    def num_users(self) -> int:
        """Users with at least one list."""
        return self.user_starts.size

    @property
    def num_lists(self) -> int:
        """Lists with something to order."""
        return self.list_starts.size


def arrange_lists(
    *, users: IntArray, lists: IntArray, items: IntArray, kept: npt.NDArray[np.bool_]
) -> LoggedLists:
    """Sort the rows that are ``kept`` into lists; a list of one row has no order and is left out.

    Args:
        users: [N] codes of the users.
        lists: [N] codes of the lists; a list belongs to one user.
        items: [N] numbers in the order of the item ids, by which equal scores are ranked.
        kept: [N].
    """
    _, codes, sizes = np.unique(lists[kept], return_inverse=True, return_counts=True)
    rows = np.flatnonzero(kept)[sizes[codes] > 1]
    rows = rows[np.lexsort((items[rows], lists[rows], users[rows]))]
    list_starts = _starts(lists[rows])
    lengths = np.diff(np.append(list_starts, rows.size))
    blocks = tuple(
        list_starts[lengths == length][:, np.newaxis] + np.arange(length)  # [L_n, n]
        for length in np.unique(lengths)
    )
    return LoggedLists(
        rows=rows, user_starts=_starts(users[rows]), list_starts=list_starts, blocks=blocks
    )


def rank_discounts(*, num_ranks: int, at: int) -> FloatArray:
    """1 / log2(1 + rank) for ranks up to ``at``, else 0 (Järvelin and Kekäläinen, TOIS 2002)."""
    ranks = np.arange(1, num_ranks + 1)
    return np.where(ranks <= at, 1 / np.log2(1 + ranks), 0.0)


def discounts_of(scores: FloatArray, lists: LoggedLists, *, at: int) -> FloatArray:
    """The discount [C, N] of every row's rank when lists are ordered by ``scores`` [C, N].

    Highest first; equal scores by item id, as in slates. Rows in the sorted order of ``lists``.
    """
    discounts = np.zeros_like(scores)
    for block in lists.blocks:
        order = np.argsort(-scores[:, block], axis=-1, kind="stable")  # [C, L_n, n]
        shown = min(at, block.shape[1])
        placed = np.zeros(order.shape)
        np.put_along_axis(
            placed, order[..., :shown], rank_discounts(num_ranks=shown, at=at), axis=-1
        )
        discounts[:, block] = placed
    return discounts


@dataclass(frozen=True, slots=True, kw_only=True)
class RankFlips:
    """How different two orders of the same lists are.

    Attributes:
        pairs: share of all pairs of rows of a list that change their order.
        top: share of the first ``at`` rows that are no longer among them, over lists longer than
            that; None where there are none.
    """

    pairs: float
    top: float | None


def rank_flips(before: FloatArray, after: FloatArray, lists: LoggedLists, *, at: int) -> RankFlips:
    """Compare the orders by the scores ``before`` and ``after``, [N] each, in sorted order."""
    swapped = num_pairs = left = num_top = 0
    for block in lists.blocks:
        length = block.shape[1]
        old, new = (
            np.argsort(-scores[block], axis=-1, kind="stable") for scores in (before, after)
        )
        new_rank = np.empty_like(new)
        np.put_along_axis(new_rank, new, np.arange(length), axis=-1)
        along_old = np.take_along_axis(new_rank, old, axis=-1)  # [L_n, n]
        step = max(1, PAIR_CELLS // length**2)
        for start in range(0, len(block), step):
            part = along_old[start : start + step]
            inverted = part[:, :, np.newaxis] > part[:, np.newaxis, :]
            swapped += int(np.triu(inverted, k=1).sum())
        num_pairs += len(block) * length * (length - 1) // 2
        if length > at:
            left += int((along_old[:, :at] >= at).sum())
            num_top += len(block) * at
    return RankFlips(
        pairs=swapped / num_pairs if num_pairs else 0.0, top=left / num_top if num_top else None
    )


def _starts(codes: IntArray) -> IntArray:
    """Where each run of equal codes begins."""
    if codes.size == 0:
        return np.empty(0, dtype=np.int64)
    return np.concatenate([[0], np.flatnonzero(np.diff(codes) != 0) + 1])
