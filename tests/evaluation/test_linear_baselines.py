"""Baselines against scikit-learn, closed forms and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from ranker.evaluation import baselines
from ranker.evaluation.baselines import (
    combine_rates,
    fit_logistic_regression,
    fit_ridge_regression,
)

FITS = [fit_logistic_regression, fit_ridge_regression]


def binary_rows(num_rows=307, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(num_rows, 11)) * np.arange(1, 12) + 100
    logits = (features[:, 0] - 100) - 0.2 * (features[:, 4] - 100)
    return features, (rng.random(num_rows) < 1 / (1 + np.exp(-logits))).astype(float)


def test_rates_combine_as_odds():
    """By hand: odds 1/4 overall; 1 and 2/3 for the two rates; 1 * (2/3) / (1/4) = 8/3."""
    combined = combine_rates([np.array([0.5]), np.array([0.4])], np.array([0.2]))
    assert combined[0] == pytest.approx(8 / 11)


def test_rates_without_evidence_leave_the_overall_rate():
    overall = np.array([0.1, 0.4, 0.7])
    np.testing.assert_allclose(combine_rates([overall, overall], overall), overall)
    np.testing.assert_allclose(combine_rates([], overall), overall)
    assert combine_rates([np.empty(0)], np.empty(0)).shape == (0,)


def test_extreme_rates_stay_finite_and_bad_ones_are_refused():
    combined = combine_rates([np.array([0.0, 1.0]), np.array([1.0, 1.0])], np.array([0.3, 0.3]))
    assert ((combined > 0) & (combined <= 1)).all()
    with pytest.raises(ValueError, match=r"rates\[1\]: expected rates in \[0, 1\]"):
        combine_rates([np.array([0.2]), np.array([np.nan])], np.array([0.3]))
    with pytest.raises(ValueError, match=r"rates\[0\]: expected shape \(2,\)"):
        combine_rates([np.array([0.2])], np.array([0.3, 0.3]))


def test_logistic_regression_equals_scikit_learns_other_solver():
    features, labels = binary_rows()
    scaled = StandardScaler().fit_transform(features)
    expected = LogisticRegression(C=1.0, tol=1e-10, max_iter=2_000).fit(scaled, labels)
    predicted = fit_logistic_regression(features, labels, seed=0).predict(features)
    np.testing.assert_allclose(predicted, expected.predict_proba(scaled)[:, 1], atol=1e-6)


def test_ridge_regression_equals_its_closed_form_and_is_clipped_below():
    features, _ = binary_rows()
    labels = np.maximum(features[:, 2] - 102 + np.sin(features[:, 3]), 0.5)
    scaled = StandardScaler().fit_transform(features)
    gram = scaled.T @ scaled + np.eye(11)
    coefficients = np.linalg.solve(gram, scaled.T @ (labels - labels.mean()))
    expected = np.maximum(scaled @ coefficients + labels.mean(), 0.5)
    predicted = fit_ridge_regression(features, labels, seed=0).predict(features)
    np.testing.assert_allclose(predicted, expected, rtol=1e-9)
    assert (predicted == 0.5).any()
    unclipped = Ridge(alpha=1.0).fit(scaled, labels).predict(scaled)
    np.testing.assert_allclose(predicted, unclipped.clip(0.5), rtol=1e-9)


@pytest.mark.parametrize("fit", FITS)
def test_missing_features_count_as_the_mean_and_missing_labels_not_at_all(fit):
    features, labels = binary_rows()
    features[3, 2] = np.nan
    filled = features.copy()
    filled[3, 2] = np.nanmean(features[:, 2])
    model = fit(features, labels, seed=0)
    np.testing.assert_allclose(model.predict(features)[3], model.predict(filled)[3])
    extra_features = np.concatenate([features, np.full((5, 11), 1e6)])
    extra_labels = np.concatenate([labels, np.full(5, np.nan)])
    other = fit(extra_features, extra_labels, seed=0)
    np.testing.assert_array_equal(other.predict(features), model.predict(features))


@pytest.mark.parametrize("fit", FITS)
def test_useless_columns_do_no_harm(fit):
    features, labels = binary_rows()
    useless = np.column_stack([features, np.full(307, 0.1), np.full(307, np.nan), np.zeros(307)])
    expected = fit(features, labels, seed=0).predict(features)
    np.testing.assert_allclose(fit(useless, labels, seed=0).predict(useless), expected, rtol=1e-6)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class_is_predicted_everywhere(fit, label):
    features, _ = binary_rows(num_rows=7)
    model = fit(features, np.full(7, label), seed=0)
    np.testing.assert_allclose(model.predict(features * 3), label, atol=1e-9)


def test_separable_classes_converge():
    features = np.linspace(-1, 1, 40)[:, None]
    labels = (features[:, 0] > 0).astype(float)
    predicted = fit_logistic_regression(features, labels, seed=0).predict(features)
    assert ((predicted > 0.5) == (labels == 1)).all()


def test_large_logs_are_sampled_by_seed(monkeypatch):
    monkeypatch.setattr(baselines, "MAX_FIT_ROWS", 200)
    features, labels = binary_rows()
    first, second, other = (
        fit_logistic_regression(features, labels, seed=seed).coefficients for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("fit", FITS)
def test_bad_input_is_refused(fit):
    features, labels = binary_rows(num_rows=31)
    with pytest.raises(ValueError, match="none is observed"):
        fit(features, np.full(31, np.nan), seed=0)
    with pytest.raises(ValueError, match=r"features \[N, F\]"):
        fit(features[:7], labels, seed=0)
    with pytest.raises(ValueError, match=r"shape \[N, 11\]"):
        fit(features, labels, seed=0).predict(features[:, :5])
    features[2, 6] = np.inf
    with pytest.raises(ValueError, match="column 6 holds infinite"):
        fit(features, labels, seed=0)
    with pytest.raises(ValueError, match="labels"):
        fit(features, np.full(31, np.inf), seed=0)
