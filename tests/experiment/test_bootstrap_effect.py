import math
from functools import partial

import numpy as np
import pytest

from ranker.experiment.bootstrap import bootstrap_effect
from ranker.experiment.covariates import CovariateSample, cuped_effect
from ranker.experiment.means import mean_effect
from ranker.experiment.quantiles import QuantileSample, quantile_effect
from ranker.experiment.ratios import RatioSample, ratio_effect

NUM_CONTROL, NUM_TREATMENT = 500, 400


def of_means(rng):
    control, treatment = rng.gamma(2.0, size=NUM_CONTROL), rng.gamma(2.2, size=NUM_TREATMENT)
    return lambda c, t: mean_effect(control[c], treatment[t], confidence=0.9)


def of_ratios(rng):
    visits = [1.0 + rng.poisson(rng.gamma(1, 4, n)) for n in (NUM_CONTROL, NUM_TREATMENT)]
    clicks = [one * rng.beta(2, 5, size=len(one)) for one in visits]
    return lambda *picks: ratio_effect(
        *(
            RatioSample(numerator=y[users], denominator=x[users])
            for y, x, users in zip(clicks, visits, picks, strict=True)
        ),
        confidence=0.9,
    )


def of_cuped_means(rng):
    past = [rng.gamma(2.0, size=n) for n in (NUM_CONTROL, NUM_TREATMENT)]
    outcomes = [one + rng.gamma(1.0, size=len(one)) for one in past]
    return lambda *picks: cuped_effect(
        *(
            CovariateSample(outcome=y[users], covariate=x[users])
            for y, x, users in zip(outcomes, past, picks, strict=True)
        ),
        confidence=0.9,
    )


def of_quantiles(rng):
    arms = []
    for size in (NUM_CONTROL, NUM_TREATMENT):
        codes = np.repeat(np.arange(size), 1 + rng.poisson(3.0, size=size))
        values = np.exp(rng.normal(size=size)[codes] + rng.normal(size=len(codes)))
        arms.append(QuantileSample(values=values, user_codes=codes))
    return lambda *picks: quantile_effect(
        *(arm.of_users(users) for arm, users in zip(arms, picks, strict=True)),
        quantile=0.6,
        confidence=0.9,
    )


def bootstrap(effect_of, *, seed, num_users=(NUM_CONTROL, NUM_TREATMENT), num_replicates=800):
    return bootstrap_effect(
        effect_of,
        num_users_control=num_users[0],
        num_users_treatment=num_users[1],
        confidence=0.9,
        num_replicates=num_replicates,
        rng=np.random.default_rng(seed),
    )


@pytest.mark.parametrize("kind", [of_means, of_ratios, of_cuped_means, of_quantiles])
def test_formulas_agree_with_the_bootstrap(kind):
    effect_of = kind(np.random.default_rng(0))
    formula = effect_of(np.arange(NUM_CONTROL), np.arange(NUM_TREATMENT))
    effect = bootstrap(effect_of, seed=1)
    assert effect.method == f"{formula.method}, bootstrap"
    assert (effect.difference, effect.lift) == (formula.difference, formula.lift)
    assert effect.difference_se == pytest.approx(formula.difference_se, rel=0.15)
    assert effect.lift_se == pytest.approx(formula.lift_se, rel=0.15)
    near = pytest.approx
    margin = 0.35 * formula.difference_se
    assert effect.difference_ci_low == near(formula.difference_ci_low, abs=margin)
    assert effect.difference_ci_high == near(formula.difference_ci_high, abs=margin)
    assert effect.lift_ci_low == near(formula.lift_ci_low, abs=0.35 * formula.lift_se)
    assert effect.lift_ci_high == near(formula.lift_ci_high, abs=0.35 * formula.lift_se)
    assert effect.p_value == near(formula.p_value, abs=0.1)


def test_same_seed_gives_the_same_effect():
    effect_of = of_means(np.random.default_rng(2))
    run = partial(bootstrap, effect_of, num_replicates=50)
    assert run(seed=3) == run(seed=3)
    assert run(seed=3).difference_ci_low != run(seed=4).difference_ci_low


def test_p_value_counts_replicates_beyond_zero():
    far = bootstrap(
        lambda c, t: mean_effect(c * 1.0, t + 1e6, confidence=0.9), seed=5, num_replicates=99
    )
    assert far.p_value == pytest.approx(2 * 1 / 100)


def test_no_interval_keeps_its_reason():
    effect = bootstrap(
        lambda c, t: mean_effect(c * 0.0, t * 0.0, confidence=0.9), seed=6, num_users=(5, 7)
    )
    assert math.isnan(effect.p_value)
    assert "doesn't vary" in effect.reason


def test_no_lift_where_control_comes_near_zero():
    control = np.array([0.0] * 17 + [5.0] * 4)
    effect = bootstrap(
        lambda c, t: mean_effect(control[c], t * 1.0, confidence=0.9), seed=7, num_users=(21, 30)
    )
    assert effect.lift is effect.lift_ci_low is effect.lift_se is None
    assert "near 0" in effect.reason
    assert effect.difference_ci_low > 0


def test_too_few_replicates_are_an_error():
    with pytest.raises(ValueError, match="num_replicates must be at least 20, got 3"):
        bootstrap(of_means(np.random.default_rng(8)), seed=9, num_replicates=3)
