"""Order metrics against scikit-learn, brute force, and invariants."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau
from sklearn.metrics import ndcg_score, roc_auc_score

from ranker.evaluation.ranking import (
    auc_by_list,
    choose_pairs,
    ndcg_by_list,
    weighted_auc,
    weighted_xauc,
)


def tied_rows(num_rows, num_users, rng):
    labels = (rng.random(num_rows) < 0.4).astype(float)
    predictions = rng.integers(6, size=num_rows) / 7  # many ties
    return labels, predictions, rng.integers(num_users, size=num_rows)


def test_weighted_auc_equals_scikit_learn_with_sample_weights_and_ties():
    rng = np.random.default_rng(3)
    labels, predictions, users = tied_rows(83, 17, rng)
    weights = rng.integers(4, size=(5, 17)).astype(float)
    measured = weighted_auc(labels=labels, predictions=predictions, users=users)(weights)
    expected = [roc_auc_score(labels, predictions, sample_weight=w[users]) for w in weights]
    np.testing.assert_allclose(measured, expected, rtol=1e-12)


def test_weighted_auc_is_nan_where_a_class_has_no_weight():
    auc = weighted_auc(
        labels=np.array([1.0, 0.0, 0.0]),
        predictions=np.array([0.9, 0.1, 0.2]),
        users=np.array([0, 1, 1]),
    )
    np.testing.assert_array_equal(auc(np.array([[1.0, 1.0], [0.0, 2.0]])), [1.0, np.nan])


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(st.tuples(st.booleans(), st.integers(-50, 50)), min_size=2, max_size=40),
    scale=st.floats(0.1, 10),
)
def test_auc_knows_only_the_order_of_predictions_and_not_of_rows(rows, scale):
    labels = np.array([float(label) for label, _ in rows])
    predictions = np.array([float(prediction) for _, prediction in rows])
    users = np.arange(len(rows))
    ones = np.ones((1, len(rows)))
    original = weighted_auc(labels=labels, predictions=predictions, users=users)(ones)
    mapped = weighted_auc(labels=labels, predictions=scale * predictions**3 + 5, users=users)(ones)
    shuffle = np.random.default_rng(len(rows)).permutation(len(rows))
    shuffled = weighted_auc(labels=labels[shuffle], predictions=predictions[shuffle], users=users)
    negated = weighted_auc(labels=labels, predictions=-predictions, users=users)(ones)
    np.testing.assert_array_equal(mapped, original)
    np.testing.assert_allclose(shuffled(ones), original, rtol=1e-12)
    np.testing.assert_allclose(1 - negated, original, atol=1e-12)


def test_auc_by_list_equals_scikit_learn_in_each_list():
    rng = np.random.default_rng(4)
    labels, predictions, lists = tied_rows(61, 9, rng)
    labels[lists == 2] = 0
    labels[lists == 5] = 1
    measured = auc_by_list(labels=labels, predictions=predictions, lists=lists, num_lists=9)
    for code in range(9):
        inside = lists == code
        if code in (2, 5):
            assert np.isnan(measured[code])
        else:
            expected = roc_auc_score(labels[inside], predictions[inside])
            assert measured[code] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("at", [1, 3, 5])
def test_ndcg_equals_scikit_learn_which_averages_over_ties_too(at):
    rng = np.random.default_rng(5)
    labels, predictions, lists = tied_rows(61, 7, rng)
    labels[lists == 3] = 0
    measured = ndcg_by_list(labels=labels, predictions=predictions, lists=lists, num_lists=7, at=at)
    assert np.isnan(measured[3])
    for code in [0, 1, 2, 4, 5, 6]:
        inside = lists == code
        expected = ndcg_score(labels[None, inside], predictions[None, inside], k=at)
        assert measured[code] == pytest.approx(expected, rel=1e-12)


def test_ndcg_of_constant_predictions_does_not_depend_on_row_order():
    lists, constant = np.zeros(4, dtype=int), np.full(4, 0.3)
    first, last = np.array([1.0, 0, 0, 0]), np.array([0, 0, 0, 1.0])
    # by hand: a quarter of each discount at ranks 1 to 3
    expected = (1 + 1 / np.log2(3) + 1 / 2) / 4
    for labels in (first, last):
        measured = ndcg_by_list(labels=labels, predictions=constant, lists=lists, num_lists=1, at=3)
        assert measured[0] == pytest.approx(expected, rel=1e-12)


def test_by_list_metrics_of_no_rows_are_undefined_for_every_list():
    empty, codes = np.empty(0), np.empty(0, dtype=int)
    aucs = auc_by_list(labels=empty, predictions=empty, lists=codes, num_lists=2)
    ndcgs = ndcg_by_list(labels=empty, predictions=empty, lists=codes, num_lists=2, at=5)
    assert np.isnan(aucs).all()
    assert np.isnan(ndcgs).all()


def test_all_pairs_are_chosen_where_they_are_few():
    labels = np.array([2.0, 5.0, 2.0, 0.0, 5.0])
    pairs = choose_pairs(labels, max_pairs=100, rng=np.random.default_rng(0))
    expected = {(i, j) for i, j in itertools.product(range(5), repeat=2) if labels[i] < labels[j]}
    assert len(pairs.lower) == len(expected) == 8
    assert set(zip(pairs.lower.tolist(), pairs.higher.tolist(), strict=True)) == expected


def test_sampled_pairs_are_ordered_and_spread_evenly():
    rng = np.random.default_rng(6)
    labels = rng.integers(12, size=301).astype(float)
    pairs = choose_pairs(labels, max_pairs=9_000, rng=rng)
    assert len(pairs.lower) == 9_000
    assert (labels[pairs.lower] < labels[pairs.higher]).all()
    num_higher = (labels[None, :] > labels[:, None]).sum(axis=1)
    num_lower = (labels[None, :] < labels[:, None]).sum(axis=1)
    share = 9_000 / num_higher.sum()
    assert np.abs(np.bincount(pairs.lower, minlength=301) - share * num_higher).max() < 2
    spread = np.bincount(pairs.higher, minlength=301) - share * num_lower
    assert np.abs(spread).max() < 5 * np.sqrt(share * num_lower.max())


@pytest.mark.parametrize("labels", [np.empty(0), np.array([3.0]), np.full(6, 3.0)])
def test_equal_labels_have_no_pairs(labels):
    pairs = choose_pairs(labels, max_pairs=10, rng=np.random.default_rng(0))
    assert pairs.lower.size == pairs.higher.size == 0


def test_xauc_of_all_pairs_follows_from_kendalls_tau():
    rng = np.random.default_rng(7)
    labels = rng.permutation(43).astype(float)  # no ties: tau = 2 XAUC - 1
    predictions = labels + rng.normal(scale=20, size=43)
    pairs = choose_pairs(labels, max_pairs=10**6, rng=rng)
    xauc = weighted_xauc(predictions=predictions, users=np.arange(43), num_users=43, pairs=pairs)(
        np.ones((1, 43))
    )
    tau = kendalltau(labels, predictions).statistic
    assert xauc[0] == pytest.approx((tau + 1) / 2, rel=1e-12)


def test_weighted_xauc_equals_xauc_of_repeated_rows():
    rng = np.random.default_rng(8)
    labels, predictions = rng.integers(5, size=23).astype(float), rng.integers(4, size=23) * 1.0
    users, weights = rng.integers(7, size=23), rng.integers(3, size=(3, 7))
    pairs = choose_pairs(labels, max_pairs=10**6, rng=rng)
    xauc = weighted_xauc(predictions=predictions, users=users, num_users=7, pairs=pairs)
    for weight, measured in zip(weights, xauc(weights.astype(float)), strict=True):
        rows = np.repeat(np.arange(23), weight[users])
        scores = [
            0.5 + 0.5 * np.sign(predictions[j] - predictions[i])
            for i, j in itertools.product(rows, repeat=2)
            if labels[i] < labels[j]
        ]
        assert measured == pytest.approx(np.mean(scores), rel=1e-12)
