import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.api import OLS

from ranker.experiment.covariates import (
    CovariateSample,
    RatioCovariateSample,
    cuped_effect,
    cuped_effect_from_moments,
    cuped_ratio_effect,
    fill_missing,
    residual_share,
)
from ranker.experiment.means import mean_effect
from ranker.experiment.moments import moments
from ranker.experiment.ratios import Quantity, RatioSample, ratio_effect


def arm(rng, size, *, correlation=0.7, lift=0.0, share_missing=0.0):
    """Outcomes around 10 with deviation 1, correlated with the past; newcomers are 2 below."""
    past = rng.normal(size=size)
    noise = math.sqrt(1 - correlation**2) * rng.normal(size=size)
    new = rng.random(size) < share_missing
    outcome = (10 + correlation * past + noise - 2 * new) * (1 + lift)
    return CovariateSample(outcome=outcome, covariate=np.where(new, np.nan, past))


def plain(control, treatment):
    return mean_effect(control.outcome, treatment.outcome, confidence=0.95)


def test_difference_is_that_of_a_regression_on_arm_and_past():
    # Ordinary least squares fits θ within arms, ours over both: they part by order 1/N.
    rng = np.random.default_rng(0)
    control, treatment = arm(rng, 9_000), arm(rng, 7_000, lift=0.01)
    outcome = np.concatenate([control.outcome, treatment.outcome])
    past = np.concatenate([control.covariate, treatment.covariate])
    in_treatment = np.arange(16_000) >= 9_000
    fit = OLS(outcome, np.column_stack([np.ones(16_000), in_treatment, past])).fit()
    effect = cuped_effect(control, treatment, confidence=0.95)
    assert effect.difference == pytest.approx(fit.params[1], rel=1e-3)
    assert effect.difference_se == pytest.approx(fit.bse[1], rel=1e-2)


def test_variance_falls_by_one_minus_squared_correlation():
    rng = np.random.default_rng(1)
    control, treatment = arm(rng, 100_000), arm(rng, 100_000)
    effect = cuped_effect(control, treatment, confidence=0.95)
    ratio = (effect.difference_se / plain(control, treatment).difference_se) ** 2
    assert ratio == pytest.approx(1 - 0.7**2, abs=0.02)
    assert effect.method == "mean, CUPED"


def test_chance_imbalance_of_the_past_is_taken_out():
    # All of the outcome but a little noise is the past, and control got the heavier users.
    rng = np.random.default_rng(2)
    heavy, light = rng.normal(5.5, 1, size=400), rng.normal(5, 1, size=300)
    control = CovariateSample(outcome=heavy + rng.normal(0, 0.1, 400), covariate=heavy)
    treatment = CovariateSample(outcome=light + 0.2 + rng.normal(0, 0.1, 300), covariate=light)
    assert plain(control, treatment).difference_ci_high < 0
    effect = cuped_effect(control, treatment, confidence=0.95)
    assert effect.difference == pytest.approx(0.2, abs=4 * effect.difference_se)
    assert effect.difference_se < 0.01


def test_equal_arms_are_told_apart_five_times_in_a_hundred():
    rng = np.random.default_rng(3)
    found = 0
    for _ in range(700):
        control, treatment = (arm(rng, size, share_missing=0.3) for size in (150, 210))
        found += cuped_effect(control, treatment, confidence=0.95).p_value < 0.05
    low, high = stats.binom.interval(0.999, 700, 0.05)
    assert low <= found <= high


def test_newcomers_count_and_their_own_level_is_taken_out():
    rng = np.random.default_rng(4)
    control, treatment = (arm(rng, size, share_missing=0.4) for size in (30_000, 20_000))
    effect = cuped_effect(control, treatment, confidence=0.95)
    assert (effect.num_users_control, effect.num_users_treatment) == (30_000, 20_000)
    # Left over: .51 for those with a past, 1 for the others; without adjusting also 4·.4·.6.
    ratio = (effect.difference_se / plain(control, treatment).difference_se) ** 2
    assert ratio == pytest.approx((0.6 * 0.51 + 0.4) / (1 + 4 * 0.4 * 0.6), abs=0.02)


def test_filled_covariate_is_uncorrelated_with_its_gaps():
    filled = fill_missing(np.array([1.0, np.nan, 4.0, 7.0, np.nan]))
    np.testing.assert_array_equal(filled.values, [1, 4, 4, 7, 4])
    np.testing.assert_array_equal(filled.missing, [0, 1, 0, 0, 1])
    assert np.cov(filled.values, filled.missing)[0, 1] == pytest.approx(0, abs=1e-15)


def test_users_without_outcome_are_left_out():
    rng = np.random.default_rng(5)
    control, treatment = arm(rng, 40), arm(rng, 50)
    outcome = np.concatenate([control.outcome, [np.nan, np.nan]])
    past = np.concatenate([control.covariate, [1e6, np.nan]])
    expected = cuped_effect(control, treatment, confidence=0.95)
    assert expected == cuped_effect(
        CovariateSample(outcome=outcome, covariate=past), treatment, confidence=0.95
    )


@pytest.mark.parametrize("past", [np.nan, 3.0])
def test_without_usable_past_the_effect_is_the_plain_one_with_a_reason(past):
    rng = np.random.default_rng(6)
    control, treatment = (
        CovariateSample(outcome=rng.normal(5, 1, size=size), covariate=np.full(size, past))
        for size in (23, 31)
    )
    effect = cuped_effect(control, treatment, confidence=0.95)
    expected = plain(control, treatment)
    assert effect.method == "mean"
    assert effect.p_value == pytest.approx(expected.p_value, rel=1e-12)
    assert effect.lift_ci_low == pytest.approx(expected.lift_ci_low, rel=1e-12)
    assert "not adjusted" in effect.reason


def test_one_user_in_an_arm_has_a_reason():
    rng = np.random.default_rng(7)
    effect = cuped_effect(arm(rng, 1), arm(rng, 9), confidence=0.95)
    assert math.isnan(effect.p_value)
    assert "1 user(s) in control" in effect.reason


def test_repeated_covariate_changes_nothing():
    rng = np.random.default_rng(8)
    arms = []
    for size in (120, 90):
        sample = arm(rng, size)
        arms.append(
            moments(
                {
                    "outcome": sample.outcome,
                    "past": sample.covariate,
                    "past in thousands": sample.covariate / 1_000,
                }
            )
        )
    once, twice = (
        cuped_effect_from_moments(
            *arms,
            quantity=Quantity(numerator="outcome"),
            covariates=[Quantity(numerator=name) for name in names],
            confidence=0.95,
        )
        for names in (["past"], ["past", "past in thousands"])
    )
    assert twice.difference == pytest.approx(once.difference, rel=1e-8)
    assert twice.difference_se == pytest.approx(once.difference_se, rel=1e-8)


def ratio_arm(rng, size, *, share_missing=0.0):
    activity, taste = rng.gamma(1.5, 5.0, size=size), rng.beta(2, 5, size=size)
    visits, past_visits = (1 + rng.poisson(activity) for _ in range(2))
    gap = rng.random(size) < share_missing
    return RatioCovariateSample(
        numerator=rng.binomial(visits, taste).astype(float),
        denominator=visits.astype(float),
        covariate_numerator=np.where(gap, np.nan, rng.binomial(past_visits, taste)),
        covariate_denominator=past_visits.astype(float),
    )


def test_ratio_gains_what_its_linearised_correlation_promises():
    rng = np.random.default_rng(9)
    control, treatment = ratio_arm(rng, 40_000), ratio_arm(rng, 30_000)
    effect = cuped_ratio_effect(control, treatment, confidence=0.95)
    without = ratio_effect(
        *(
            RatioSample(numerator=one.numerator, denominator=one.denominator)
            for one in (control, treatment)
        ),
        confidence=0.95,
    )
    residual, past_residual = (
        y - y.mean() / x.mean() * x
        for y, x in (
            (control.numerator, control.denominator),
            (control.covariate_numerator, control.covariate_denominator),
        )
    )
    correlation = np.corrcoef(residual, past_residual)[0, 1]
    ratio = (effect.difference_se / without.difference_se) ** 2
    assert correlation > 0.4
    assert ratio == pytest.approx(1 - correlation**2, abs=0.02)


def test_equal_ratio_arms_are_told_apart_five_times_in_a_hundred():
    rng = np.random.default_rng(10)
    found = 0
    for _ in range(400):
        control, treatment = (ratio_arm(rng, size, share_missing=0.2) for size in (150, 190))
        found += cuped_ratio_effect(control, treatment, confidence=0.95).p_value < 0.05
    low, high = stats.binom.interval(0.999, 400, 0.05)
    assert low <= found <= high


def test_residual_share_is_one_minus_r_squared():
    rng = np.random.default_rng(11)
    first, second = rng.normal(size=(2, 90))
    outcome = first - 0.5 * second + rng.normal(size=90)
    users = moments({"y": outcome, "first": first, "second": second, "same": np.ones(90)})
    fit = OLS(outcome, np.column_stack([np.ones(90), first, second])).fit()
    covariates = [Quantity(numerator=name) for name in ("first", "same", "second")]
    share = residual_share(users, quantity=Quantity(numerator="y"), covariates=covariates)
    assert share == pytest.approx(1 - fit.rsquared, rel=1e-9)
    assert residual_share(users, quantity=Quantity(numerator="y"), covariates=[]) == 1


def test_columns_of_different_lengths_are_an_error():
    with pytest.raises(ValueError, match=r"of one length, got {'outcome': 3, 'covariate': 4}"):
        CovariateSample(outcome=np.zeros(3), covariate=np.zeros(4))


def test_infinite_past_is_an_error():
    sample = CovariateSample(outcome=np.arange(3.0), covariate=np.array([1.0, np.inf, 2.0]))
    other = CovariateSample(outcome=np.arange(4.0), covariate=np.arange(4.0))
    with pytest.raises(ValueError, match="past: expected finite values"):
        cuped_effect(sample, other, confidence=0.95)
