import math

import numpy as np
import pytest
from scipy import stats

from ranker.experiment.quantiles import QuantileSample, quantile_effect


def arm(rng, num_users, *, scale=1.0):
    """Log-normal rows, several a user and half of their variance his own."""
    rows = 1 + rng.poisson(rng.gamma(1.0, 4.0, size=num_users))
    codes = np.repeat(np.arange(num_users), rows)
    logs = rng.normal(size=num_users)[codes] + rng.normal(size=len(codes))
    return QuantileSample(values=scale * np.exp(logs), user_codes=codes)


def one_row_each(values):
    return QuantileSample(values=values, user_codes=np.arange(len(values)))


@pytest.mark.parametrize("quantile", [0.5, 0.9])
def test_values_are_numpys_quantiles(quantile):
    rng = np.random.default_rng(0)
    control, treatment = arm(rng, 230), arm(rng, 310)
    effect = quantile_effect(control, treatment, quantile=quantile, confidence=0.9)
    assert effect.control == np.quantile(control.values, quantile)
    assert effect.treatment == np.quantile(treatment.values, quantile)
    assert effect.method == f"quantile {quantile}"
    assert (effect.num_users_control, effect.num_users_treatment) == (230, 310)


@pytest.mark.parametrize("quantile", [0.25, 0.5, 0.9])
def test_standard_error_of_independent_rows_is_the_textbooks(quantile):
    # √(p(1 − p)/n) / f(q), f the density (van der Vaart 1998, corollary 21.5).
    rng = np.random.default_rng(1)
    sizes = (90_000, 60_000)
    effect = quantile_effect(
        *(one_row_each(rng.normal(50, 3, size=size)) for size in sizes),
        quantile=quantile,
        confidence=0.95,
    )
    density = stats.norm(50, 3).pdf(stats.norm(50, 3).ppf(quantile))
    variance = quantile * (1 - quantile) / density**2
    expected = math.sqrt(variance / sizes[0] + variance / sizes[1])
    assert effect.difference_se == pytest.approx(expected, rel=0.05)


def test_rows_of_one_user_are_not_independent():
    # The same row five times over is as much as the row once.
    rng = np.random.default_rng(2)
    values = rng.gamma(3.0, size=(2, 4_000))
    once = [one_row_each(one) for one in values]
    five = [
        QuantileSample(values=np.tile(one, 5), user_codes=np.tile(np.arange(4_000), 5))
        for one in values
    ]
    expected = quantile_effect(*once, quantile=0.7, confidence=0.95)
    effect = quantile_effect(*five, quantile=0.7, confidence=0.95)
    assert effect.difference_se == pytest.approx(expected.difference_se, rel=0.02)


def test_equal_arms_are_told_apart_five_times_in_a_hundred():
    rng = np.random.default_rng(3)
    effects = [
        quantile_effect(arm(rng, 400), arm(rng, 350), quantile=0.8, confidence=0.95)
        for _ in range(300)
    ]
    found = sum(effect.p_value < 0.05 for effect in effects)
    low, high = stats.binom.interval(0.999, 300, 0.05)
    assert low <= found <= high
    spread = np.std([effect.difference for effect in effects])
    assert np.mean([effect.difference_se for effect in effects]) == pytest.approx(spread, rel=0.15)


def test_scaling_shows_as_the_lift():
    rng = np.random.default_rng(4)
    effect = quantile_effect(
        arm(rng, 5_000), arm(rng, 6_000, scale=1.5), quantile=0.5, confidence=0.99
    )
    assert effect.lift_ci_low < 0.5 < effect.lift_ci_high
    assert effect.lift_ci_low > 0.2


def test_order_and_names_of_users_do_not_matter():
    rng = np.random.default_rng(5)
    control, treatment = arm(rng, 90), arm(rng, 110)
    order = rng.permutation(len(control.values))
    names = rng.permutation(90) * 3  # codes with gaps
    shuffled = QuantileSample(
        values=control.values[order], user_codes=names[control.user_codes[order]]
    )
    expected = quantile_effect(control, treatment, quantile=0.6, confidence=0.95)
    effect = quantile_effect(shuffled, treatment, quantile=0.6, confidence=0.95)
    assert effect.difference_se == pytest.approx(expected.difference_se, rel=1e-12)
    assert effect.num_users_control == 90


def test_unobserved_rows_are_left_out():
    rng = np.random.default_rng(6)
    control, treatment = arm(rng, 90), arm(rng, 110)
    gaps = QuantileSample(
        values=np.concatenate([control.values, [np.nan, np.nan]]),
        user_codes=np.concatenate([control.user_codes, [0, 90]]),  # user 90: nothing observed
    )
    expected = quantile_effect(control, treatment, quantile=0.5, confidence=0.95)
    assert quantile_effect(gaps, treatment, quantile=0.5, confidence=0.95) == expected


def test_picked_users_bring_all_their_rows_as_new_users():
    sample = QuantileSample(
        values=np.array([1.0, 2, 3, 4, 5]), user_codes=np.array([0, 2, 0, 3, 2])
    )
    picked = sample.of_users(np.array([2, 0, 2, 1]))
    np.testing.assert_array_equal(picked.values, [2, 5, 1, 3, 2, 5])
    np.testing.assert_array_equal(picked.user_codes, [0, 0, 1, 1, 2, 2])


@pytest.mark.parametrize(
    ("values", "quantile", "reason"),
    [
        ([3.0], 0.5, "1 user(s) in control"),
        ([], 0.5, "0 user(s) in control"),
        ([math.nan] * 7, 0.5, "0 user(s) in control"),
        (list(range(9)), 0.99, "9 users in control are too few for the quantile 0.99"),
        ([0.0] * 80 + [1.0] * 20, 0.5, "in control tie near the quantile 0.5"),
        (list(np.arange(1_000) // 25), 0.5, "in control tie near the quantile 0.5, 19"),
        ([2.0] * 30, 0.5, "in control tie near the quantile 0.5"),
    ],
)
def test_no_interval_has_a_reason(values, quantile, reason):
    control = one_row_each(np.array(values, dtype=float))
    treatment = one_row_each(np.random.default_rng(7).normal(5, 1, size=1_000))
    effect = quantile_effect(control, treatment, quantile=quantile, confidence=0.95)
    assert math.isnan(effect.p_value)
    assert math.isnan(effect.difference_se)
    assert reason in effect.reason


def test_bad_input_is_named():
    good = one_row_each(np.arange(9.0))
    with pytest.raises(ValueError, match="quantile must be between 0 and 1, got 95"):
        quantile_effect(good, good, quantile=95, confidence=0.95)
    with pytest.raises(ValueError, match="as many user codes as values, got 3 and 2"):
        QuantileSample(values=np.zeros(2), user_codes=np.arange(3))
    with pytest.raises(ValueError, match="user codes must be >= 0, got -1"):
        QuantileSample(values=np.zeros(2), user_codes=np.array([0, -1]))
    with pytest.raises(ValueError, match="expected finite values"):
        one_row_each(np.array([1.0, -np.inf]))
