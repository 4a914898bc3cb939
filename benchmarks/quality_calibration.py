"""Probabilities corrected by what happened on one day: Platt's line, or a rising step function.

Shapes: N rows.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

FloatArray = npt.NDArray[np.float64]
Calibrator = Callable[[FloatArray], FloatArray]
_MIN_PROBABILITY = 1e-7
_NO_PENALTY = 1e9


def fit_platt(labels: FloatArray, predictions: FloatArray) -> Calibrator:
    """sigmoid(a logit(p) + b), fitted by maximum likelihood (Platt, 1999) on [N]."""
    model = LogisticRegression(C=_NO_PENALTY, tol=1e-8, max_iter=1_000)
    model.fit(_log_odds(predictions)[:, None], labels)
    slope, intercept = float(model.coef_[0, 0]), float(model.intercept_[0])
    return lambda values: np.asarray(expit(slope * _log_odds(values) + intercept))


def fit_isotonic(labels: FloatArray, predictions: FloatArray) -> Calibrator:
    """The rising function nearest to the labels (Zadrozny and Elkan, KDD 2002).

    It stays half a row away from 0 and 1: one day without a positive does not make one impossible.
    """
    margin = 0.5 / labels.size
    model = IsotonicRegression(y_min=margin, y_max=1 - margin, out_of_bounds="clip")
    model.fit(predictions, labels)
    return lambda values: np.asarray(model.predict(values), dtype=np.float64)


METHODS = {"platt": fit_platt, "isotonic": fit_isotonic}


def _log_odds(predictions: FloatArray) -> FloatArray:
    return np.asarray(logit(np.clip(predictions, _MIN_PROBABILITY, 1 - _MIN_PROBABILITY)))
