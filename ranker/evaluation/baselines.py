"""Baselines that a model has to beat: combined rates, and linear models of one task each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression, Ridge

from ranker.evaluation.metrics import FloatArray

MIN_RATE = 1e-6  # rates of exactly 0 or 1 would outvote all others
MAX_FIT_ROWS = 500_000  # a linear model learns nothing from more; bounds time and memory
L2_PENALTY = 1.0


def combine_rates(rates: Sequence[FloatArray], overall: FloatArray) -> FloatArray:
    """Combine n rates [N] of a binary task (by user, item, ...) as if they were independent.

    sigmoid(sum_i logit(rate_i) - (n - 1) logit(overall)): naive Bayes, each rate moving the
    overall rate's log odds by its own evidence. Without rates it is ``overall``. Rates are
    clipped to [1e-6, 1 - 1e-6].

    Raises:
        ValueError: shapes differ, or a rate is not in [0, 1].
    """
    for name, rate in [("overall", overall), *((f"rates[{i}]", r) for i, r in enumerate(rates))]:
        if rate.shape != overall.shape:
            raise ValueError(f"{name}: expected shape {overall.shape}, got {rate.shape}")
        if not ((rate >= 0) & (rate <= 1)).all():
            raise ValueError(f"{name}: expected rates in [0, 1]; fill missing ones with overall")
    log_odds = _log_odds(overall)
    return np.asarray(expit(log_odds + sum(_log_odds(rate) - log_odds for rate in rates)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LinearBaseline:
    """A fitted linear model that standardises its own features [N, F]; NaN counts as the mean.

    Attributes:
        means, scales: [F] of the fitted rows.
        coefficients: [F], for standardised features.
        intercept: in log odds for a classifier, else in the label's unit.
        is_classifier: whether predictions are probabilities.
        minimum: predictions below it are raised to it.
    """

    means: FloatArray
    scales: FloatArray
    coefficients: FloatArray
    intercept: float
    is_classifier: bool
    minimum: float

    def predict(self, features: FloatArray) -> FloatArray:
        """Probabilities or expected values [N].

        Raises:
            ValueError: another number of features than fitted, or an infinite one.
        """
        _check_features(features, self.means.size)
        standardised = _standardise(features, self.means, self.scales)
        outputs = standardised @ self.coefficients + self.intercept
        return np.asarray(expit(outputs) if self.is_classifier else outputs.clip(self.minimum))


def fit_logistic_regression(
    features: FloatArray, labels: FloatArray, *, seed: int
) -> LinearBaseline:
    """Fit P(label = 1) on features [N, F] with an L2 penalty of 1 on standardised coefficients.

    Rows with a NaN label are left out; with labels of one class the prediction is that class.
    Beyond 500,000 rows a sample drawn by ``seed`` is used.

    Raises:
        ValueError: shapes differ, an infinite feature, a label besides 0 and 1, or no label.
    """
    if not np.isin(labels[~np.isnan(labels)], (0, 1)).all():
        raise ValueError("labels: logistic regression needs 0, 1 or NaN")
    features, labels = _fitted_rows(features, labels, seed)
    means, scales = _column_moments(features)
    base_rate = float(labels.mean())
    coefficients, intercept = np.zeros(means.size), float(logit(base_rate))
    if 0 < base_rate < 1:
        # Newton steps on the F x F Hessian: a handful suffice where rows far outnumber features
        model = LogisticRegression(C=1 / L2_PENALTY, solver="newton-cholesky", tol=1e-8)
        model.fit(_standardise(features, means, scales), labels)
        coefficients, intercept = model.coef_[0], float(model.intercept_[0])
    return LinearBaseline(
        means=means,
        scales=scales,
        coefficients=coefficients,
        intercept=intercept,
        is_classifier=True,
        minimum=0.0,
    )


def fit_ridge_regression(features: FloatArray, labels: FloatArray, *, seed: int) -> LinearBaseline:
    """Fit the expected label on features [N, F]: least squares with an L2 penalty of 1.

    Rows with a NaN label are left out. Predictions are never below the smallest fitted label.
    Beyond 500,000 rows a sample drawn by ``seed`` is used.

    Raises:
        ValueError: shapes differ, an infinite feature or label, or no label.
    """
    if np.isinf(labels).any():
        raise ValueError("labels: expected finite numbers or NaN, got an infinite one")
    features, labels = _fitted_rows(features, labels, seed)
    means, scales = _column_moments(features)
    model = Ridge(alpha=L2_PENALTY, solver="cholesky")
    model.fit(_standardise(features, means, scales), labels)
    return LinearBaseline(
        means=means,
        scales=scales,
        coefficients=model.coef_,
        intercept=float(model.intercept_),
        is_classifier=False,
        minimum=float(labels.min()),
    )


def _log_odds(rates: FloatArray) -> FloatArray:
    return np.asarray(logit(rates.clip(MIN_RATE, 1 - MIN_RATE)))


def _fitted_rows(
    features: FloatArray, labels: FloatArray, seed: int
) -> tuple[FloatArray, FloatArray]:
    if labels.ndim != 1 or features.ndim != 2 or len(features) != labels.size:
        raise ValueError(
            f"expected features [N, F] and labels [N], got {features.shape} and {labels.shape}"
        )
    rows = np.flatnonzero(~np.isnan(labels))
    if rows.size == 0:
        raise ValueError("labels: none is observed; leave this task out")
    if rows.size > MAX_FIT_ROWS:
        rng = np.random.default_rng(seed)
        rows = np.sort(rng.choice(rows, size=MAX_FIT_ROWS, replace=False))
    _check_features(features, features.shape[1])
    return features[rows], labels[rows]


def _check_features(features: FloatArray, num_features: int) -> None:
    if features.ndim != 2 or features.shape[1] != num_features:
        raise ValueError(f"features: expected shape [N, {num_features}], got {features.shape}")
    infinite = np.isinf(features).any(axis=0)
    if infinite.any():
        raise ValueError(
            f"features: column {int(np.argmax(infinite))} holds infinite values; use NaN for "
            "missing ones"
        )


def _column_moments(features: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation [F] of what is present; 0 and 1 where that says nothing."""
    present = ~np.isnan(features)
    counts = np.maximum(present.sum(axis=0), 1)
    means = np.where(present, features, 0).sum(axis=0) / counts
    deviations = np.where(present, features - means, 0)
    scales = np.sqrt((deviations**2).sum(axis=0) / counts)
    # a constant column leaves rounding error only, which must not be blown up to scale 1
    constant = scales <= 1e-9 * np.maximum(np.abs(means), 1e-300)
    return means, np.where(constant, 1.0, scales)


def _standardise(features: FloatArray, means: FloatArray, scales: FloatArray) -> FloatArray:
    return np.nan_to_num((features - means) / scales, nan=0.0)
