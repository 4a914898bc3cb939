"""The bootstrap: its draws, its percentiles, and its coverage where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from ranker.evaluation.evaluate import evaluate_task
from ranker.evaluation.intervals import (
    BootstrapSettings,
    Estimate,
    draw_user_weights,
    percentile_estimate,
)


def test_every_replicate_draws_as_many_users_as_there_are():
    rng = np.random.default_rng(0)
    blocks = list(draw_user_weights(num_users=13, num_replicates=700, block_size=64, rng=rng))
    weights = np.concatenate(blocks)
    assert weights.shape == (700, 13)
    assert max(len(block) for block in blocks) == 64
    np.testing.assert_array_equal(weights.sum(axis=1), 13)
    # multinomial: mean 1, variance 1 - 1/13; five standard errors
    assert np.abs(weights.mean(axis=0) - 1).max() < 5 / np.sqrt(700)
    assert weights.var() == pytest.approx(12 / 13, abs=0.1)


def test_draws_do_not_depend_on_the_block_size():
    small, large = (
        np.concatenate(
            list(
                draw_user_weights(
                    num_users=11, num_replicates=30, block_size=size, rng=np.random.default_rng(1)
                )
            )
        )
        for size in (4, 30)
    )
    np.testing.assert_array_equal(small, large)


def test_the_interval_is_made_of_percentiles():
    replicates = np.random.default_rng(2).permutation(101) / 100.0
    estimate = percentile_estimate(
        value=0.4, replicates=replicates, confidence=0.9, undefined="never"
    )
    assert estimate == Estimate(value=0.4, ci_low=pytest.approx(0.05), ci_high=pytest.approx(0.95))


def test_few_undefined_replicates_are_left_out_and_many_forbid_an_interval():
    replicates = np.arange(100.0)
    replicates[:5] = np.nan
    estimate = percentile_estimate(value=7, replicates=replicates, confidence=0.5, undefined="")
    assert estimate.ci_low == pytest.approx(28.5)  # quartile of 5..99
    replicates[5] = np.inf
    estimate = percentile_estimate(value=7, replicates=replicates, confidence=0.5, undefined="")
    assert (estimate.value, estimate.ci_low, estimate.ci_high) == (7, None, None)
    assert "undefined in 6% of the bootstrap replicates" in estimate.reason


def test_a_value_that_is_not_finite_is_none_with_its_reason():
    estimate = percentile_estimate(
        value=np.nan, replicates=np.ones(3), confidence=0.9, undefined="no pairs"
    )
    assert estimate.to_json() == {
        "value": None,
        "ci_low": None,
        "ci_high": None,
        "reason": "no pairs",
    }


def test_json_has_no_reason_where_there_is_none():
    form = Estimate(value=0.7, ci_low=0.6, ci_high=0.8).to_json()
    assert form == {"value": 0.7, "ci_low": 0.6, "ci_high": 0.8}


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.1, 0.2, True), (-0.2, -0.1, True), (-0.1, 0.1, False), (0.0, 0.0, False), (None, None, 0)],
)
def test_excluding_zero(low, high, expected):
    assert Estimate(value=0.1, ci_low=low, ci_high=high).excludes_zero() == bool(expected)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("num_replicates", 1), ("confidence", 1.0), ("confidence", 0.0), ("ndcg_at", 0)],
)
def test_settings_are_checked(setting, value):
    with pytest.raises(ValueError, match=setting):
        BootstrapSettings(**{setting: value})


@pytest.mark.slow
def test_intervals_cover_the_truth_when_rows_of_a_user_are_alike():
    """Errors share a user's part: plain row-wise intervals would cover far less than 95 %."""
    rng, num_users, per_user, trials = np.random.default_rng(9), 90, 7, 300
    users = np.repeat(np.arange(num_users), per_user)
    true_mae = np.sqrt(2 / np.pi)  # of a standard normal error
    covered, plain_covered = 0, 0
    for _ in range(trials):
        shared, own = rng.normal(size=num_users)[users], rng.normal(size=users.size)
        errors = np.sqrt(0.6) * shared + np.sqrt(0.4) * own
        mae = evaluate_task(
            kind="regression",
            labels=10 + errors,
            predictions_by_model={"m": np.full(users.size, 10.0)},
            users=users,
            lists=users,
            rng=rng,
            settings=BootstrapSettings(num_replicates=200),
        ).estimates["m"]["mae"]
        covered += mae.ci_low <= true_mae <= mae.ci_high
        half = 1.96 * np.abs(errors).std() / np.sqrt(users.size)
        plain_covered += abs(np.abs(errors).mean() - true_mae) <= half
    assert 0.90 <= covered / trials <= 0.98
    assert plain_covered / trials < 0.85


@pytest.mark.slow
def test_auc_intervals_and_paired_differences_cover_the_truth():
    """Binormal scores: AUC is Phi(d / sqrt(2 (1 + s^2))), s the noise a model adds."""
    rng, num_users, per_user, trials = np.random.default_rng(10), 80, 8, 200
    users = np.repeat(np.arange(num_users), per_user)
    true_a, true_b = norm.cdf(1 / np.sqrt(2)), norm.cdf(1 / np.sqrt(2 * 1.25))
    covered, difference_covered = 0, 0
    for _ in range(trials):
        labels = (rng.random(users.size) < rng.beta(2, 3, size=num_users)[users]).astype(float)
        clean = labels + rng.normal(size=users.size)
        noisy = clean + 0.5 * rng.normal(size=users.size)
        evaluation = evaluate_task(
            kind="binary",
            labels=labels,
            predictions_by_model={"a": norm.cdf(clean), "b": norm.cdf(noisy)},
            users=users,
            lists=users,
            rng=rng,
            settings=BootstrapSettings(num_replicates=200),
        )
        auc, difference = evaluation.estimates["a"]["auc"], evaluation.difference("a", "b")["auc"]
        covered += auc.ci_low <= true_a <= auc.ci_high
        difference_covered += difference.ci_low <= true_a - true_b <= difference.ci_high
    assert 0.89 <= covered / trials <= 0.985
    assert 0.89 <= difference_covered / trials <= 0.985
