"""Calibration: are predicted probabilities and expected values right on average?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from ranker.evaluation.metrics import FloatArray, IntArray


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationBin:
    """Rows with similar predictions; the interval is for the mean label (``None``: unknown)."""

    mean_prediction: float
    mean_label: float
    rows: int
    ci_low: float | None
    ci_high: float | None


def calibration_curve(
    labels: FloatArray,
    predictions: FloatArray,
    num_bins: int = 10,
    *,
    users: IntArray | None = None,
    confidence: float = 0.95,
) -> tuple[CalibrationBin, ...]:
    """Mean label against mean prediction in equal-mass bins of the rows with a label.

    For labels of 0 and 1 the interval is Wilson's (JASA 1927), for others it is normal. Given
    ``users`` [N], it allows for rows of one user being alike: the number of rows is divided by the
    design effect, the ratio of the clustered to the plain variance of the mean (Kish, Survey
    Sampling, 1965; at least 1). Without ``users`` rows count as independent.

    Returns:
        Bins by rising prediction; fewer than ``num_bins`` where predictions tie, none without
        labels.

    Raises:
        ValueError: arrays of different lengths, a prediction that is not finite, num_bins < 1.
    """
    clusters = np.arange(labels.size) if users is None else users
    _check_curve(labels, predictions, clusters, num_bins)
    observed = ~np.isnan(labels)
    labels, predictions, clusters = labels[observed], predictions[observed], clusters[observed]
    bins = equal_mass_bins(predictions, num_bins)
    binary = bool(np.isin(labels, (0, 1)).all())
    z = float(ndtri((1 + confidence) / 2))
    curve = []
    for index in np.unique(bins):
        inside = bins == index
        interval = _wilson if binary else _normal
        low, high = interval(labels[inside], clusters[inside], z)
        curve.append(
            CalibrationBin(
                mean_prediction=float(predictions[inside].mean()),
                mean_label=float(labels[inside].mean()),
                rows=int(inside.sum()),
                ci_low=low,
                ci_high=high,
            )
        )
    return tuple(curve)


def equal_mass_bins(predictions: FloatArray, num_bins: int) -> IntArray:
    """Bin index [N], rising with the prediction, in [0, num_bins); about N / num_bins rows each.

    Equal predictions share a bin, so with many ties some bins stay empty.
    """
    ascending = np.sort(predictions)
    num_below = np.searchsorted(ascending, predictions, side="left")
    return np.asarray(num_below * num_bins // max(predictions.size, 1), dtype=np.int64)


def _check_curve(
    labels: FloatArray, predictions: FloatArray, clusters: IntArray, num_bins: int
) -> None:
    if not labels.shape == predictions.shape == clusters.shape == (labels.size,):
        raise ValueError(
            "calibration_curve: labels, predictions and users must be one-dimensional and of "
            f"equal length, got {labels.shape}, {predictions.shape} and {clusters.shape}"
        )
    if not np.isfinite(predictions).all():
        raise ValueError("calibration_curve: predictions must be finite; fill or drop those rows")
    if num_bins < 1:
        raise ValueError(f"calibration_curve: num_bins must be at least 1, got {num_bins}")


def _effective_rows(labels: FloatArray, clusters: IntArray) -> float:
    """Number of independent rows that would know the mean as well as these do."""
    num_rows = labels.size
    _, codes = np.unique(clusters, return_inverse=True)
    num_clusters = int(codes.max()) + 1
    errors = labels - labels.mean()
    squares = float((errors**2).sum())
    if num_clusters == 1 or squares == 0:
        return float(num_clusters)  # no spread to learn from: as if each cluster were one row
    cluster_squares = float((np.bincount(codes, weights=errors) ** 2).sum())
    plain = squares * num_rows / (num_rows - 1)
    clustered = cluster_squares * num_clusters / (num_clusters - 1)
    return num_rows / max(1.0, clustered / plain)


def _wilson(labels: FloatArray, clusters: IntArray, z: float) -> tuple[float | None, float | None]:
    rate, rows = float(labels.mean()), _effective_rows(labels, clusters)
    centre = (rate + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z / (1 + z**2 / rows) * np.sqrt(rate * (1 - rate) / rows + z**2 / (4 * rows**2))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def _normal(labels: FloatArray, clusters: IntArray, z: float) -> tuple[float | None, float | None]:
    if np.unique(clusters).size == 1:
        return None, None
    mean = float(labels.mean())
    half = z * float(labels.std(ddof=1)) / float(np.sqrt(_effective_rows(labels, clusters)))
    return mean - half, mean + half
