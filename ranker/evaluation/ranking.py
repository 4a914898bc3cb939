"""Metrics of order: AUC over all rows, AUC and NDCG within lists, XAUC over pairs.

Equal predictions carry no order: each metric takes its expected value over all ways of breaking
such ties, so no row order is rewarded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from ranker.evaluation.metrics import FloatArray, IntArray, ratio, sum_by


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Pairs of rows: the label of ``higher`` [P] is above the label of ``lower`` [P]."""

    lower: IntArray
    higher: IntArray


def weighted_auc(
    *, labels: FloatArray, predictions: FloatArray, users: IntArray
) -> Callable[[FloatArray], FloatArray]:
    """Prepare the AUC of rows weighted by user: a function from weights [R, U] to AUC [R].

    Rows are sorted once; a replicate then costs one cumulative sum. With w a row's weight,
    AUC = sum over positives i of w_i (W_<(i) + W_<=(i)) / 2, divided by the product of both
    classes' weights; W_< and W_<= are the weights of the negatives predicted below i, and below
    or equal. NaN where a class has no weight.
    """
    order = np.argsort(predictions, kind="stable")
    positive = labels[order] == 1
    positive_users, negative_users = users[order][positive], users[order][~positive]
    positives, negatives = predictions[order][positive], predictions[order][~positive]
    num_below = np.searchsorted(negatives, positives, side="left")
    num_below_or_equal = np.searchsorted(negatives, positives, side="right")

    def auc(weights: FloatArray) -> FloatArray:
        below = np.zeros((len(weights), negatives.size + 1))
        np.cumsum(np.take(weights, negative_users, axis=1), axis=1, out=below[:, 1:])
        beaten = np.take(below, num_below, axis=1)
        beaten += np.take(below, num_below_or_equal, axis=1)
        positive_weights = np.take(weights, positive_users, axis=1)
        wins = np.einsum("rp,rp->r", positive_weights, beaten) / 2
        return ratio(wins, positive_weights.sum(axis=1) * below[:, -1])

    return auc


def auc_by_list(
    *, labels: FloatArray, predictions: FloatArray, lists: IntArray, num_lists: int
) -> FloatArray:
    """AUC [L] within each list (Mann-Whitney, by mean ranks); NaN for lists with one class."""
    ranks = _mean_ranks(predictions, lists)  # 1-based, ascending
    rank_sums = sum_by(lists, ranks * labels, num_lists)
    num_positives = sum_by(lists, labels, num_lists)
    num_negatives = np.bincount(lists, minlength=num_lists) - num_positives
    wins = rank_sums - num_positives * (num_positives + 1) / 2
    return ratio(wins, num_positives * num_negatives)


def ndcg_by_list(
    *, labels: FloatArray, predictions: FloatArray, lists: IntArray, num_lists: int, at: int
) -> FloatArray:
    """NDCG@``at`` [L] of each list with binary gains; NaN for lists without a positive.

    Discounts are 1 / log2(1 + rank) up to ``at`` and 0 after (Järvelin and Kekäläinen, TOIS
    2002). Tied rows share the mean discount of the ranks they occupy, the expected value over
    random tie breaks (McSherry and Najork, ECIR 2008).
    """
    if labels.size == 0:
        return np.full(num_lists, np.nan)
    order, tie_groups, ranks = _ranks_within_lists(-predictions, lists)
    discounts = np.where(ranks <= at, 1 / np.log2(1 + ranks), 0.0)
    group_discounts = np.bincount(tie_groups, weights=discounts) / np.bincount(tie_groups)
    gains = labels[order] * group_discounts[tie_groups]
    dcg = sum_by(lists[order], gains, num_lists)
    num_positives = np.bincount(lists[labels == 1], minlength=num_lists)
    best_discounts = 1 / np.log2(1 + np.arange(1, at + 1))
    best = np.concatenate([[0.0], np.cumsum(best_discounts)])[np.minimum(num_positives, at)]
    return ratio(dcg, best)


def choose_pairs(labels: FloatArray, *, max_pairs: int, rng: np.random.Generator) -> Pairs:
    """All pairs of rows with different labels; where there are too many, an even sample of them.

    Pairs are numbered along the rows sorted by label and one is drawn from each of ``max_pairs``
    equal stretches of numbers, so that every row has its share.
    """
    order = np.argsort(labels, kind="stable")
    ascending = labels[order]
    first_higher = np.searchsorted(ascending, ascending, side="right")  # [N]
    ends = np.cumsum(labels.size - first_higher)  # pairs whose lower row is at or before this one
    num_pairs = int(ends[-1]) if ends.size else 0
    if num_pairs <= max_pairs:
        numbers = np.arange(num_pairs)
    else:
        stretch = num_pairs / max_pairs
        numbers = ((np.arange(max_pairs) + rng.random(max_pairs)) * stretch).astype(np.int64)
        numbers = np.minimum(numbers, num_pairs - 1)
    lower = np.searchsorted(ends, numbers, side="right")
    # ends - numbers >= 1 counts backwards from the last row
    higher = labels.size - (ends[lower] - numbers)
    return Pairs(lower=order[lower], higher=order[higher])


def weighted_xauc(
    *, predictions: FloatArray, users: IntArray, num_users: int, pairs: Pairs
) -> Callable[[FloatArray], FloatArray]:
    """Prepare XAUC weighted by user: a function from weights [R, U] to XAUC [R].

    XAUC is the share of pairs that the predictions put in the labels' order, a tie counting half
    (Zhan et al., KDD 2022). In a replicate a pair counts as often as both its rows meet: with w
    the users' weights it is w' C w / w' D w, where C and D add up correct and all pairs by users.
    """
    above = predictions[pairs.higher] - predictions[pairs.lower]
    correct = (1 + np.sign(above)) / 2
    cells = (users[pairs.higher], users[pairs.lower])
    shape = (num_users, num_users)
    correct_by_users = sparse.csr_array((correct, cells), shape=shape)
    pairs_by_users = sparse.csr_array((np.ones_like(correct), cells), shape=shape)

    def xauc(weights: FloatArray) -> FloatArray:
        by_user = np.ascontiguousarray(weights.T)  # [U, R]
        num_correct = np.einsum("ur,ur->r", correct_by_users @ by_user, by_user)
        num_pairs = np.einsum("ur,ur->r", pairs_by_users @ by_user, by_user)
        return ratio(num_correct, num_pairs)

    return xauc


def _ranks_within_lists(keys: FloatArray, lists: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Sort rows by list, then key: the order, and in that order tie groups and 1-based ranks."""
    order = np.lexsort((keys, lists))
    sorted_keys, sorted_lists = keys[order], lists[order]
    new_list = np.concatenate([[True], sorted_lists[1:] != sorted_lists[:-1]])
    new_group = new_list | np.concatenate([[True], sorted_keys[1:] != sorted_keys[:-1]])
    starts = np.flatnonzero(new_list)
    ranks = np.arange(1, order.size + 1) - starts[np.cumsum(new_list) - 1]
    return order, np.cumsum(new_group) - 1, ranks


def _mean_ranks(keys: FloatArray, lists: IntArray) -> FloatArray:
    """1-based ascending rank [N] of each row within its list; tied rows share their mean rank."""
    mean_ranks = np.empty(keys.size)
    if keys.size == 0:
        return mean_ranks
    order, tie_groups, ranks = _ranks_within_lists(keys, lists)
    group_means = np.bincount(tie_groups, weights=ranks) / np.bincount(tie_groups)
    mean_ranks[order] = group_means[tie_groups]
    return mean_ranks
