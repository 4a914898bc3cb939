"""The metrics of a regression task as functions of user weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ranker.evaluation.metrics import FloatArray, IntArray, Measure, ratio, sums_by_user
from ranker.evaluation.ranking import Pairs, weighted_xauc


def measure_regression(
    *, labels: FloatArray, predictions: FloatArray, users: IntArray, num_users: int, pairs: Pairs
) -> Measure:
    """Prepare one model's metrics on rows [N] that all have a label.

    - mae, rmse: in the label's unit.
    - mae_log1p, rmse_log1p: the same on log1p of both, predictions below 0 counting as 0; NaN
      when any label is below 0.
    - calibration_ratio: mean prediction / mean label; NaN unless the mean label is above 0.
    - xauc: over ``pairs``, which all models share.
    """
    xauc = weighted_xauc(predictions=predictions, users=users, num_users=num_users, pairs=pairs)
    errors = predictions - labels
    log_errors = _log1p_errors(labels, predictions)
    columns = np.stack(
        [
            np.ones_like(labels),
            labels,
            predictions,
            np.abs(errors),
            errors**2,
            np.abs(log_errors),
            log_errors**2,
        ]
    )
    sums = sums_by_user(columns, users, num_users)  # [7, U]

    def measure(weights: FloatArray) -> Mapping[str, FloatArray]:
        rows, label, predicted, absolute, squared, log_absolute, log_squared = sums @ weights.T
        return {
            "mae": ratio(absolute, rows),
            "rmse": np.sqrt(ratio(squared, rows)),
            "mae_log1p": ratio(log_absolute, rows),
            "rmse_log1p": np.sqrt(ratio(log_squared, rows)),
            "calibration_ratio": ratio(predicted, label),
            "xauc": xauc(weights),
        }

    return measure


def _log1p_errors(labels: FloatArray, predictions: FloatArray) -> FloatArray:
    if labels.min() < 0:
        return np.full_like(labels, np.nan)
    return np.log1p(np.maximum(predictions, 0)) - np.log1p(labels)
