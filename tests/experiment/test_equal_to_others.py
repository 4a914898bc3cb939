"""Where scipy, statsmodels or tea-tasting do the same thing, ours is theirs to 1e-8."""

import math

import numpy as np
import pyarrow as pa
import pytest
import tea_tasting as tt
from scipy import stats
from statsmodels.stats.gof import chisquare_effectsize
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import NormalIndPower, TTestIndPower
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from ranker.experiment.assignment import check_arm_counts, check_sample_ratio
from ranker.experiment.covariates import (
    CovariateSample,
    RatioCovariateSample,
    cuped_effect,
    cuped_ratio_effect,
)
from ranker.experiment.means import mean_effect
from ranker.experiment.moments import moments
from ranker.experiment.multiplicity import benjamini_hochberg, holm
from ranker.experiment.power import Baseline, detectable_lift, power_of_lift, users_for_lift
from ranker.experiment.ratios import Quantity, RatioSample, ratio_effect

NUM_CONTROL, NUM_TREATMENT = 431, 367
CONFIDENCE = 0.9


def same(value):
    return pytest.approx(value, rel=1e-8, abs=1e-8)


@pytest.fixture(scope="module")
def users():
    """Skewed sums of two columns and their past, treatment 8 % up."""
    rng = np.random.default_rng(11)
    in_treatment = np.arange(NUM_CONTROL + NUM_TREATMENT) >= NUM_CONTROL
    activity = rng.gamma(1.3, 4.0, size=len(in_treatment))
    taste = rng.beta(2, 7, size=len(in_treatment))
    visits, past_visits = (1 + rng.poisson(activity) for _ in range(2))
    rates = taste * np.where(in_treatment, 1.08, 1.0)
    columns = {
        "clicks": rng.binomial(visits, rates),
        "visits": visits,
        "past_clicks": rng.binomial(past_visits, taste),
        "past_visits": past_visits,
    }
    return in_treatment, {name: values.astype(float) for name, values in columns.items()}


def arms(users, *names):
    in_treatment, columns = users
    return tuple([columns[name][arm] for name in names] for arm in (~in_treatment, in_treatment))


def of_tea_tasting(users, metric):
    in_treatment, columns = users
    table = pa.table({**columns, "variant": in_treatment.astype(int)})
    return tt.Experiment(metric=metric, variant="variant").analyze(table)["metric"]


def settings():
    return {"confidence_level": CONFIDENCE, "equal_var": False, "use_t": True}


def test_mean_is_scipys_welch_test(users):
    (control,), (treatment,) = arms(users, "clicks")
    effect = mean_effect(control, treatment, confidence=CONFIDENCE)
    expected = stats.ttest_ind(treatment, control, equal_var=False)
    interval = expected.confidence_interval(CONFIDENCE)
    assert effect.p_value == same(expected.pvalue)
    assert effect.difference / effect.difference_se == same(expected.statistic)
    assert (effect.difference_ci_low, effect.difference_ci_high) == same(tuple(interval))


def test_mean_is_statsmodels_unequal_variance_test(users):
    (control,), (treatment,) = arms(users, "clicks")
    effect = mean_effect(control, treatment, confidence=CONFIDENCE)
    expected = CompareMeans(DescrStatsW(treatment), DescrStatsW(control))
    interval = expected.tconfint_diff(alpha=1 - CONFIDENCE, usevar="unequal")
    assert effect.p_value == same(expected.ttest_ind(usevar="unequal")[1])
    assert (effect.difference_ci_low, effect.difference_ci_high) == same(interval)


def ours_and_theirs(users):
    mean, ratio = arms(users, "clicks"), arms(users, "clicks", "visits")
    cuped = arms(users, "clicks", "past_clicks")
    cuped_ratio = arms(users, "clicks", "visits", "past_clicks", "past_visits")
    names = ("numerator", "denominator", "covariate_numerator", "covariate_denominator")
    return {
        "mean": (
            mean_effect(*mean[0], *mean[1], confidence=CONFIDENCE),
            tt.Mean("clicks", **settings()),
        ),
        "ratio": (
            ratio_effect(
                *(RatioSample(numerator=y, denominator=x) for y, x in ratio), confidence=CONFIDENCE
            ),
            tt.RatioOfMeans("clicks", "visits", **settings()),
        ),
        "mean, CUPED": (
            cuped_effect(
                *(CovariateSample(outcome=y, covariate=x) for y, x in cuped), confidence=CONFIDENCE
            ),
            tt.Mean("clicks", "past_clicks", **settings()),
        ),
        "ratio, CUPED": (
            cuped_ratio_effect(
                *(
                    RatioCovariateSample(**dict(zip(names, arm, strict=True)))
                    for arm in cuped_ratio
                ),
                confidence=CONFIDENCE,
            ),
            tt.RatioOfMeans("clicks", "visits", "past_clicks", "past_visits", **settings()),
        ),
    }


@pytest.mark.parametrize("method", ["mean", "ratio", "mean, CUPED", "ratio, CUPED"])
def test_effects_are_tea_tastings(users, method):
    effect, metric = ours_and_theirs(users)[method]
    expected = of_tea_tasting(users, metric)
    assert effect.method == method
    assert effect.control == same(expected.control)
    assert effect.treatment == same(expected.treatment)
    assert effect.difference == same(expected.effect_size)
    assert effect.difference_ci_low == same(expected.effect_size_ci_lower)
    assert effect.difference_ci_high == same(expected.effect_size_ci_upper)
    assert effect.difference / effect.difference_se == same(expected.statistic)
    assert effect.p_value == same(expected.pvalue)
    assert effect.lift == same(expected.rel_effect_size)


@pytest.mark.parametrize("method", ["mean", "ratio", "mean, CUPED", "ratio, CUPED"])
def test_lift_intervals_agree_with_tea_tastings_to_first_order(users, method):
    # Theirs is of log(T/C), ours Fieller's: the gap falls with the square of the width.
    effect, metric = ours_and_theirs(users)[method]
    expected = of_tea_tasting(users, metric)
    width = expected.rel_effect_size_ci_upper - expected.rel_effect_size_ci_lower
    assert effect.lift_ci_low == pytest.approx(expected.rel_effect_size_ci_lower, abs=width**2 / 2)
    assert effect.lift_ci_high == pytest.approx(expected.rel_effect_size_ci_upper, abs=width**2 / 2)
    assert 0 < effect.lift_se < width


def test_sample_ratio_is_scipys_and_tea_tastings_without_continuity_correction(users):
    in_treatment, _ = users
    ours = check_sample_ratio(in_treatment, share_treatment=0.4)
    theirs = of_tea_tasting(users, tt.SampleRatio(4 / 6, method="norm", correction=False))
    expected = stats.chisquare(
        [NUM_CONTROL, NUM_TREATMENT], [0.6 * len(in_treatment), 0.4 * len(in_treatment)]
    )
    assert ours.p_value == same(theirs.pvalue)
    assert ours.p_value == same(expected.pvalue)


def test_arm_counts_are_scipys_chi_square():
    counts, shares = [510, 301, 222, 77], [0.45, 0.27, 0.2, 0.08]
    names = ["control", "b", "c", "d"]
    ours = check_arm_counts(
        dict(zip(names, counts, strict=True)),
        share_by_arm={name: 100 * share for name, share in zip(names, shares, strict=True)},
    )
    expected = stats.chisquare(counts, np.array(shares) * sum(counts))
    assert ours.p_value == same(expected.pvalue)
    effect_size = chisquare_effectsize(shares, np.array(counts) / sum(counts))
    assert stats.chi2.sf(sum(counts) * effect_size**2, df=3) == same(ours.p_value)


@pytest.mark.parametrize(("ours", "theirs"), [(holm, "holm"), (benjamini_hochberg, "fdr_bh")])
@pytest.mark.parametrize("num_tests", [1, 2, 13, 101])
def test_adjusted_p_values_are_statsmodels(ours, theirs, num_tests):
    rng = np.random.default_rng(num_tests)
    p_values = rng.beta(0.3, 2.0, size=num_tests).round(3)  # rounded: ties
    np.testing.assert_allclose(
        ours(p_values), multipletests(p_values, method=theirs)[1], rtol=1e-12, atol=0
    )


@pytest.mark.parametrize(("num_users", "lift"), [(9, 0.7), (400, 0.1), (3_000, -0.03)])
def test_power_is_statsmodels_t_test_power(num_users, lift):
    baseline = Baseline(mean=3.0, variance=7.0, correlation=0.6)
    effect_size = lift * 3.0 / math.sqrt(7.0 * (1 - 0.6**2))
    assert power_of_lift(
        baseline,
        lift=lift,
        num_users_control=num_users,
        num_users_treatment=num_users,
        confidence=0.95,
    ) == same(TTestIndPower().power(effect_size, nobs1=num_users, alpha=0.05))


@pytest.mark.parametrize("num_treatment", [250_000, 90_000])
def test_power_of_many_users_is_statsmodels_normal_power(num_treatment):
    baseline = Baseline(mean=3.0, variance=7.0)
    assert power_of_lift(
        baseline,
        lift=0.008,
        num_users_control=250_000,
        num_users_treatment=num_treatment,
        confidence=0.9,
    ) == same(
        NormalIndPower().power(
            0.008 * 3 / math.sqrt(7), nobs1=250_000, alpha=0.1, ratio=num_treatment / 250_000
        )
    )


def test_detectable_lift_and_users_are_statsmodels():
    baseline = Baseline(mean=3.0, variance=7.0, correlation=0.3)
    deviation = math.sqrt(baseline.residual_variance)
    lift = detectable_lift(
        baseline, power=0.8, num_users_control=700, num_users_treatment=700, confidence=0.95
    )
    expected = TTestIndPower().solve_power(nobs1=700, alpha=0.05, power=0.8)
    assert lift == same(expected * deviation / 3)
    needed = users_for_lift(baseline, lift=0.04, power=0.9, confidence=0.95)
    expected = TTestIndPower().solve_power(effect_size=0.04 * 3 / deviation, alpha=0.05, power=0.9)
    assert needed.control == needed.treatment == math.ceil(expected)


@pytest.mark.parametrize("denominator", [None, "visits"])
@pytest.mark.parametrize("with_past", [False, True])
def test_power_from_data_is_tea_tastings(users, denominator, with_past):
    _, columns = users
    past = ("past_clicks", denominator and "past_visits") if with_past else (None, None)
    baseline = Baseline.of_moments(
        moments(columns),
        quantity=Quantity(numerator="clicks", denominator=denominator),
        covariates=[Quantity(numerator=past[0], denominator=past[1])] if with_past else [],
    )
    metric = tt.RatioOfMeans(
        "clicks",
        denominator,
        *past,
        rel_effect_size=0.03,
        n_obs=19_000,
        ratio=1 / 3,
        **settings(),
        alpha=1 - CONFIDENCE,
    )
    expected = metric.solve_power(pa.table(columns), "power")[0]
    power = power_of_lift(
        baseline,
        lift=0.03,
        num_users_control=19_000 * 3 / 4,
        num_users_treatment=19_000 / 4,
        confidence=CONFIDENCE,
    )
    assert power == same(expected.power)
    assert 0.2 < power < 0.99


def test_users_for_lift_in_uneven_arms_have_the_power_asked_for():
    baseline = Baseline(mean=2.0, variance=5.0)
    needed = users_for_lift(baseline, lift=-0.05, power=0.8, confidence=0.95, share_treatment=0.25)
    assert needed.control == pytest.approx(3 * needed.treatment, abs=3)
    powers = [
        power_of_lift(
            baseline,
            lift=-0.05,
            num_users_control=needed.control - less,
            num_users_treatment=needed.treatment - less,
            confidence=0.95,
        )
        for less in (0, 1)
    ]
    assert powers[1] < 0.8 <= powers[0]
