"""Calibration curves against statsmodels and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from statsmodels.stats.proportion import proportion_confint

from ranker.evaluation.calibration import calibration_curve, equal_mass_bins


def test_bins_and_wilson_intervals():
    rng = np.random.default_rng(0)
    predictions = rng.random(203)
    labels = (rng.random(203) < predictions).astype(float)
    curve = calibration_curve(labels, predictions, 7)
    order = np.argsort(predictions)
    assert len(curve) == 7
    assert [one.rows for one in curve] == [29] * 7
    for index, one in enumerate(curve):
        inside = order[29 * index : 29 * (index + 1)]
        assert one.mean_prediction == pytest.approx(predictions[inside].mean())
        assert one.mean_label == pytest.approx(labels[inside].mean())
        expected = proportion_confint(labels[inside].sum(), 29, alpha=0.05, method="wilson")
        assert (one.ci_low, one.ci_high) == pytest.approx(expected, abs=1e-12)


def test_users_whose_rows_are_copies_count_once():
    """Five equal rows a user hold the information of one: the interval is that of the users."""
    rng = np.random.default_rng(1)
    outcomes = (rng.random(400) < 0.3).astype(float)
    (curve,) = calibration_curve(
        np.repeat(outcomes, 5), np.full(2000, 0.3), 4, users=np.repeat(np.arange(400), 5)
    )
    expected = proportion_confint(outcomes.sum(), 400, alpha=0.05, method="wilson")
    assert (curve.ci_low, curve.ci_high) == pytest.approx(expected, abs=2e-4)


def test_other_labels_get_a_normal_interval():
    labels = np.array([1.0, 4.0, 2.0, 9.0, 4.0])
    (curve,) = calibration_curve(labels, np.full(5, 3.0), 2, confidence=0.9)
    half = norm.ppf(0.95) * labels.std(ddof=1) / np.sqrt(5)
    assert (curve.ci_low, curve.ci_high) == pytest.approx((4 - half, 4 + half))


def test_missing_labels_are_left_out_and_extremes_keep_an_interval():
    labels = np.array([0.0, np.nan, 0.0, 0.0])
    (curve,) = calibration_curve(labels, np.full(4, 0.1), 3)
    assert (curve.rows, curve.mean_label, curve.ci_low) == (3, 0, 0)
    expected = proportion_confint(0, 3, alpha=0.05, method="wilson")[1]
    assert curve.ci_high == pytest.approx(expected)
    assert calibration_curve(np.full(4, np.nan), np.full(4, 0.1), 3) == ()
    assert calibration_curve(np.empty(0), np.empty(0), 3) == ()
    (single,) = calibration_curve(np.array([3.5]), np.array([2.0]))
    assert (single.ci_low, single.ci_high) == (None, None)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="equal length"):
        calibration_curve(np.zeros(3), np.zeros(5))
    with pytest.raises(ValueError, match="finite"):
        calibration_curve(np.zeros(3), np.array([0.1, np.nan, 0.2]))
    with pytest.raises(ValueError, match="num_bins must be at least 1"):
        calibration_curve(np.zeros(3), np.zeros(3), 0)


@given(st.lists(st.integers(-9, 9), max_size=50), st.integers(1, 12))
def test_bins_rise_with_predictions_and_keep_ties_together(numbers, num_bins):
    predictions = np.array(numbers, dtype=float)
    bins = equal_mass_bins(predictions, num_bins)
    assert ((bins >= 0) & (bins < num_bins)).all()
    order = np.argsort(predictions)
    assert (np.diff(bins[order]) >= 0).all()
    for value in set(numbers):
        assert len(set(bins[predictions == value].tolist())) == 1
    np.testing.assert_array_equal(equal_mass_bins(predictions**3, num_bins), bins)
