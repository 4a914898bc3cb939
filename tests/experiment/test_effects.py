import json
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ranker.experiment.effect import ArmEstimate, compare_arms
from ranker.experiment.means import mean_effect
from ranker.experiment.moments import moments
from ranker.experiment.ratios import Quantity, RatioSample, estimate, linearise, ratio_effect


def test_mean_effect_by_hand():
    effect = mean_effect(np.array([1.0, 2, 3]), np.array([3.0, 4, 4, 7, 7]), confidence=0.95)
    variance = (4 + 1 + 1 + 4 + 4) / 4  # of 3, 4, 4, 7, 7 around 5
    se = math.sqrt(1 / 3 + variance / 5)
    df = se**4 / ((1 / 3) ** 2 / 2 + (variance / 5) ** 2 / 4)
    assert (effect.control, effect.treatment, effect.difference) == (2, 5, 3)
    assert effect.difference_se == pytest.approx(se)
    assert effect.p_value == pytest.approx(2 * stats.t.sf(3 / se, df))
    assert effect.lift == pytest.approx(1.5)
    assert effect.lift_se == pytest.approx(math.sqrt(variance / 5 + 2.5**2 / 3) / 2)
    assert (effect.num_users_control, effect.num_users_treatment) == (3, 5)
    assert effect.method == "mean"


def test_ratio_effect_by_hand():
    # R = 6/12: residuals Y − R·X are -1, 1, 0; their variance 1, mean X 4, so SE² = 1/(3·16).
    control = RatioSample(numerator=np.array([1.0, 3, 2]), denominator=np.array([4.0, 4, 4]))
    # R = 9/12: residuals -1, 1, 0.5, -0.5; variance 2.5/3, mean X 3, SE² = (2.5/3)/(4·9).
    treatment = RatioSample(
        numerator=np.array([0.5, 2.5, 5, 1]), denominator=np.array([2.0, 2, 6, 2])
    )
    effect = ratio_effect(control, treatment, confidence=0.95)
    assert (effect.control, effect.treatment) == (0.5, 0.75)
    assert effect.lift == pytest.approx(0.5)
    assert effect.difference_se == pytest.approx(math.sqrt(1 / 48 + 2.5 / 108))


def test_lift_interval_is_every_lift_that_the_test_lets_pass():
    # Fieller's definition, by search: lifts at which T − (1 + lift)·C is within t·SE of 0.
    rng = np.random.default_rng(4)
    control, treatment = rng.gamma(2.0, size=60), rng.gamma(2.5, size=45)
    effect = mean_effect(control, treatment, confidence=0.9)
    lifts = np.linspace(-1, 3, 400_001)
    spread = np.sqrt(treatment.var(ddof=1) / 45 + (1 + lifts) ** 2 * control.var(ddof=1) / 60)
    df = stats.ttest_ind(treatment, control, equal_var=False).df
    gap = np.abs(treatment.mean() - (1 + lifts) * control.mean())
    passing = lifts[gap <= stats.t.ppf(0.95, df) * spread]
    assert effect.lift_ci_low == pytest.approx(passing.min(), abs=2e-5)
    assert effect.lift_ci_high == pytest.approx(passing.max(), abs=2e-5)


@given(
    shift=st.floats(-1.2, 1.2),
    num_control=st.integers(3, 40),
    num_treatment=st.integers(3, 40),
    seed=st.integers(0, 2**32 - 1),
)
def test_lift_interval_never_contradicts_the_p_value(shift, num_control, num_treatment, seed):
    rng = np.random.default_rng(seed)
    effect = mean_effect(
        rng.gamma(3.0, size=num_control), rng.gamma(3.0, size=num_treatment) + shift, confidence=0.9
    )
    significant = effect.p_value < 0.1
    assert significant == (not effect.difference_ci_low <= 0 <= effect.difference_ci_high)
    if effect.lift is not None:
        assert significant == (not effect.lift_ci_low <= 0 <= effect.lift_ci_high)
        assert effect.lift_ci_low <= effect.lift <= effect.lift_ci_high


def test_lift_interval_approaches_the_delta_method_with_many_users():
    arm = ArmEstimate(value=4.0, squared_se=1e-6, num_users=10**7)
    other = ArmEstimate(value=4.1, squared_se=2e-6, num_users=10**7)
    effect = compare_arms(arm, other, method="mean", confidence=0.95)
    margin = stats.norm.ppf(0.975) * math.sqrt(2e-6 + (4.1 / 4) ** 2 * 1e-6) / 4
    assert effect.lift_ci_high - effect.lift == pytest.approx(margin, rel=1e-3)
    assert effect.lift - effect.lift_ci_low == pytest.approx(margin, rel=1e-3)


def test_ratio_of_one_row_each_is_the_mean():
    rng = np.random.default_rng(5)
    control, treatment = rng.normal(3, 1, size=31), rng.normal(3, 2, size=47)
    ratio = ratio_effect(
        RatioSample(numerator=control, denominator=np.ones(31)),
        RatioSample(numerator=treatment, denominator=np.ones(47)),
        confidence=0.8,
    )
    mean = mean_effect(control, treatment, confidence=0.8)
    assert ratio.p_value == pytest.approx(mean.p_value, rel=1e-12)
    assert ratio.lift_ci_low == pytest.approx(mean.lift_ci_low, rel=1e-12)


def test_ratio_standard_error_is_the_spread_over_repeated_samples():
    rng = np.random.default_rng(6)
    values, squared = [], []
    for _ in range(1_500):
        visits = 1.0 + rng.poisson(rng.gamma(1.0, 4.0, size=211))
        clicks = rng.binomial(visits.astype(int), rng.beta(2, 5, size=211)).astype(float)
        arm = estimate(
            moments({"clicks": clicks, "visits": visits}),
            Quantity(numerator="clicks", denominator="visits"),
        )
        values.append(arm.value)
        squared.append(arm.squared_se)
    assert np.mean(squared) == pytest.approx(np.var(values), rel=0.1)


def test_linearised_ratio_has_the_derivatives_of_the_ratio():
    users = moments({"y": np.array([1.0, 4, 2]), "z": np.zeros(3), "x": np.array([2.0, 7, 3])})
    linear = linearise(users, Quantity(numerator="y", denominator="x"))
    y, x, step = 7 / 3, 4.0, 1e-6
    assert linear.value == pytest.approx(y / x)
    numeric = [
        ((y + step) / x - (y - step) / x) / (2 * step),
        0.0,
        (y / (x + step) - y / (x - step)) / (2 * step),
    ]
    np.testing.assert_allclose(linear.weights, numeric, rtol=1e-6, atol=1e-9)


def false_positives(effect_of, *, num_experiments, seed):
    rng = np.random.default_rng(seed)
    effects = [effect_of(rng) for _ in range(num_experiments)]
    return sum(effect.p_value < 0.05 for effect in effects)


def skewed_means(rng):
    return mean_effect(
        rng.lognormal(size=500), rng.lognormal(size=700), confidence=0.95
    )  # skewness 6


def clustered_ratios(rng):
    return ratio_effect(*(ratio_arm(rng, size) for size in (250, 310)), confidence=0.95)


def ratio_arm(rng, size):
    visits = 1 + rng.poisson(rng.gamma(1.0, 6.0, size=size))
    clicks = rng.binomial(visits, rng.beta(1, 2, size=size))
    return RatioSample(numerator=clicks.astype(float), denominator=visits.astype(float))


@pytest.mark.parametrize("effect_of", [skewed_means, clustered_ratios])
def test_equal_arms_are_told_apart_five_times_in_a_hundred(effect_of):
    low, high = stats.binom.interval(0.999, 1_200, 0.05)
    assert low <= false_positives(effect_of, num_experiments=1_200, seed=7) <= high


def test_interval_covers_the_true_lift():
    rng = np.random.default_rng(8)
    covered = 0
    for _ in range(1_000):
        effect = mean_effect(
            rng.gamma(2.0, 3.0, size=350), 1.07 * rng.gamma(2.0, 3.0, size=290), confidence=0.8
        )
        covered += effect.lift_ci_low <= 0.07 <= effect.lift_ci_high
    low, high = stats.binom.interval(0.999, 1_000, 0.8)
    assert low <= covered <= high


def test_unobserved_users_are_left_out():
    control, treatment = np.array([1.0, np.nan, 4, 2]), np.array([np.nan, 3.0, 5, 9, np.nan])
    expected = mean_effect(control[[0, 2, 3]], treatment[[1, 2, 3]], confidence=0.95)
    assert mean_effect(control, treatment, confidence=0.95) == expected
    ratio = ratio_effect(
        RatioSample(numerator=control, denominator=np.array([1.0, 1, np.nan, 1])),
        RatioSample(numerator=treatment, denominator=np.ones(5)),
        confidence=0.95,
    )
    assert (ratio.num_users_control, ratio.num_users_treatment) == (2, 3)


@pytest.mark.parametrize(
    ("control", "treatment", "reason"),
    [
        ([1.0], [1.0, 2.0, 4.0], r"1 user\(s\) in control"),
        ([1.0, 2.0], [], r"0 user\(s\) in treatment"),
        ([math.nan] * 3, [1.0, 2.0], r"0 user\(s\) in control"),
        ([0.1] * 3, [0.1] * 7, "doesn't vary"),
        ([0.0] * 3, [0.3] * 7, "doesn't vary"),
    ],
)
def test_no_interval_has_a_reason(control, treatment, reason):
    effect = mean_effect(np.array(control), np.array(treatment), confidence=0.95)
    assert math.isnan(effect.difference_se)
    assert math.isnan(effect.p_value)
    assert math.isnan(effect.difference_ci_low)
    assert effect.lift is effect.lift_ci_low is effect.lift_se is None
    assert re.search(reason, effect.reason)


@pytest.mark.parametrize(
    ("control", "treatment", "reason"),
    [
        ([0.0, 0.0, 0.0], [1.0, 2.0, 4.0], "above 0"),
        ([-3.0, -1.0, -2.5], [1.0, 2.0, 4.0], "above 0"),
        ([0.0, 0.0, 0.0, 1.0], [1.0, 2.0, 4.0], "cannot be told from 0"),
        ([5.0, 6.0, 7.0], [0.0] * 4, "0 for every user in treatment"),
    ],
)
def test_no_lift_has_a_reason_and_the_difference_stays(control, treatment, reason):
    effect = mean_effect(np.array(control), np.array(treatment), confidence=0.95)
    expected = stats.ttest_ind(treatment, control, equal_var=False)
    assert effect.p_value == pytest.approx(expected.pvalue)
    assert effect.lift is effect.lift_ci_high is effect.lift_se is None
    assert reason in effect.reason


def test_ratio_without_denominator_has_a_reason():
    nothing = RatioSample(numerator=np.zeros(3), denominator=np.zeros(3))
    something = RatioSample(numerator=np.array([1.0, 2]), denominator=np.array([3.0, 5]))
    effect = ratio_effect(nothing, something, confidence=0.95)
    assert "no value in control" in effect.reason
    assert math.isnan(effect.control)
    assert effect.treatment == pytest.approx(3 / 8)


def test_rounding_is_not_variance():
    # Every user's ratio is 0.1 exactly: what is left of the variance is rounding.
    arm = RatioSample(numerator=0.1 * np.arange(1.0, 12), denominator=np.arange(1.0, 12))
    assert "doesn't vary" in ratio_effect(arm, arm, confidence=0.95).reason


def test_json_has_no_nan():
    effect = mean_effect(np.array([1.0]), np.array([2.0, 3.0]), confidence=0.95)
    record = json.loads(json.dumps(effect.to_json(), allow_nan=False))
    assert record["difference"] == 1.5
    assert record["p_value"] is None
    assert record["lift"] is None
    assert record["num_users_treatment"] == 2


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_confidence_out_of_range_is_an_error(confidence):
    with pytest.raises(ValueError, match="confidence must be between 0 and 1"):
        mean_effect(np.arange(3.0), np.arange(4.0), confidence=confidence)


def test_infinite_value_is_an_error():
    with pytest.raises(ValueError, match="expected finite values, got inf at entry 1"):
        mean_effect(np.array([1.0, np.inf, 2.0]), np.arange(4.0), confidence=0.95)


def test_parts_of_different_lengths_are_an_error():
    with pytest.raises(ValueError, match="as many numerators as denominators, got 3 and 4"):
        RatioSample(numerator=np.zeros(3), denominator=np.ones(4))
