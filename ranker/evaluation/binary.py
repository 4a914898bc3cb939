"""The metrics of a binary task as functions of user weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ranker.evaluation.calibration import equal_mass_bins
from ranker.evaluation.metrics import FloatArray, IntArray, Measure, ratio, sum_by, sums_by_user
from ranker.evaluation.ranking import auc_by_list, ndcg_by_list, weighted_auc

NUM_ECE_BINS = 15
MIN_PROBABILITY = 1e-7  # float32 predictions know no number between 1 - 6e-8 and 1


def measure_binary(
    *,
    labels: FloatArray,
    predictions: FloatArray,
    list_predictions: FloatArray,
    users: IntArray,
    lists: IntArray,
    user_of_list: IntArray,
    ndcg_at: int,
) -> Measure:
    """Prepare one model's metrics on rows [N] that all have a label.

    ``users`` and ``lists`` are codes without gaps, ``user_of_list`` [L] says whose list it is.
    gauc and ndcg order lists by ``list_predictions``, all else is of ``predictions``.

    - auc: over all pairs of rows.
    - gauc: AUC within each list, weighted by the list's impressions; lists with one class are
      left out.
    - log_loss: in nats, predictions clipped to [1e-7, 1 - 1e-7].
    - normalised_entropy: log loss divided by the entropy of the base rate (He et al., ADKDD 2014).
    - calibration_ratio: mean prediction / mean label.
    - ece: sum over 15 equal-mass bins of share of rows * |mean prediction - mean label|; the bins
      are fixed on all rows and equal predictions share a bin.
    - ndcg@k: mean over lists with a positive.
    """
    num_users = int(user_of_list.max()) + 1
    auc = weighted_auc(labels=labels, predictions=predictions, users=users)
    sums = _row_sums(labels, predictions, users, num_users)  # [4, U]
    gaps = _bin_gaps(labels, predictions, users, num_users)  # [bins, U]
    list_sums = _list_sums(labels, list_predictions, lists, user_of_list, ndcg_at)  # [4, U]

    def measure(weights: FloatArray) -> Mapping[str, FloatArray]:
        rows, positives, predicted, losses = sums @ weights.T
        list_wins, list_rows, gains, num_gaining = list_sums @ weights.T
        log_loss = ratio(losses, rows)
        return {
            "auc": auc(weights),
            "gauc": ratio(list_wins, list_rows),
            "log_loss": log_loss,
            "normalised_entropy": ratio(log_loss, _entropy(ratio(positives, rows))),
            "calibration_ratio": ratio(predicted, positives),
            "ece": ratio(np.abs(gaps @ weights.T).sum(axis=0), rows),
            f"ndcg@{ndcg_at}": ratio(gains, num_gaining),
        }

    return measure


def _row_sums(
    labels: FloatArray, predictions: FloatArray, users: IntArray, num_users: int
) -> FloatArray:
    clipped = np.clip(predictions, MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    losses = -np.where(labels == 1, np.log(clipped), np.log1p(-clipped))
    columns = np.stack([np.ones_like(labels), labels, predictions, losses])
    return sums_by_user(columns, users, num_users)


def _bin_gaps(
    labels: FloatArray, predictions: FloatArray, users: IntArray, num_users: int
) -> FloatArray:
    """Sum of prediction - label by bin and user: all that ECE needs, as a bin's rows cancel."""
    bins = equal_mass_bins(predictions, NUM_ECE_BINS)
    cells = bins * num_users + users
    sums = sum_by(cells, predictions - labels, NUM_ECE_BINS * num_users)
    return sums.reshape(NUM_ECE_BINS, num_users)


def _list_sums(
    labels: FloatArray,
    predictions: FloatArray,
    lists: IntArray,
    user_of_list: IntArray,
    ndcg_at: int,
) -> FloatArray:
    num_lists, num_users = user_of_list.size, int(user_of_list.max()) + 1
    aucs = auc_by_list(labels=labels, predictions=predictions, lists=lists, num_lists=num_lists)
    ndcgs = ndcg_by_list(
        labels=labels, predictions=predictions, lists=lists, num_lists=num_lists, at=ndcg_at
    )
    impressions = np.where(np.isnan(aucs), 0, np.bincount(lists, minlength=num_lists))
    columns = np.stack(
        [np.nan_to_num(aucs) * impressions, impressions, np.nan_to_num(ndcgs), ~np.isnan(ndcgs)]
    )
    return sums_by_user(columns, user_of_list, num_users)


def _entropy(rates: FloatArray) -> FloatArray:
    """Entropy in nats; NaN for a rate of 0, 1 or NaN."""
    inside = (rates > 0) & (rates < 1)
    safe = np.where(inside, rates, 0.5)
    return np.where(inside, -safe * np.log(safe) - (1 - safe) * np.log1p(-safe), np.nan)
