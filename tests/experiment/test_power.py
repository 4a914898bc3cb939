import math

import numpy as np
import pytest
from scipy import stats

from ranker.experiment.means import mean_effect
from ranker.experiment.moments import moments
from ranker.experiment.power import Baseline, detectable_lift, power_of_lift, users_for_lift
from ranker.experiment.ratios import Quantity, RatioSample, ratio_effect

BASELINE = Baseline(mean=2.0, variance=3.0)


def power(baseline=BASELINE, *, lift, sizes=(800, 500), confidence=0.95):
    return power_of_lift(
        baseline,
        lift=lift,
        num_users_control=sizes[0],
        num_users_treatment=sizes[1],
        confidence=confidence,
    )


def test_power_without_lift_is_the_false_alarm_rate():
    assert power(lift=0.0) == pytest.approx(0.05)
    assert power(lift=0.0, confidence=0.8, sizes=(3, 7)) == pytest.approx(0.2)


def test_power_is_the_share_of_experiments_that_find_the_lift():
    rng = np.random.default_rng(0)
    found = sum(
        mean_effect(
            rng.gamma(4 / 3, 1.5, size=800), 0.2 + rng.gamma(4 / 3, 1.5, size=500), confidence=0.95
        ).p_value
        < 0.05
        for _ in range(1_200)
    )
    low, high = stats.binom.interval(0.999, 1_200, power(lift=0.1))
    assert low <= found <= high


def test_power_of_a_ratio_is_that_of_its_linearised_variance():
    rng = np.random.default_rng(1)

    def draw(size, lift):
        visits = 1 + rng.poisson(rng.gamma(1, 4, size=size))
        clicks = rng.binomial(visits, 0.8 * rng.beta(2, 5, size=size) * (1 + lift))
        return {"clicks": clicks.astype(float), "visits": visits.astype(float)}

    baseline = Baseline.of_moments(
        moments(draw(200_000, 0.0)), quantity=Quantity(numerator="clicks", denominator="visits")
    )
    found = 0
    for _ in range(800):
        control, treatment = (
            RatioSample(numerator=arm["clicks"], denominator=arm["visits"])
            for arm in (draw(450, 0.0), draw(380, 0.12))
        )
        found += ratio_effect(control, treatment, confidence=0.95).p_value < 0.05
    expected = power(baseline, lift=0.12, sizes=(450, 380))
    assert found / 800 == pytest.approx(expected, abs=0.055)
    assert 0.3 < expected < 0.9


def test_sign_of_the_lift_does_not_matter():
    assert power(lift=-0.07) == power(lift=0.07)


@pytest.mark.parametrize("sizes", [(2, 2), (90, 41), (60_000, 40_000), (10**8, 10**8)])
def test_power_rises_to_one_without_gaps(sizes):
    lifts = np.geomspace(1e-6, 1e4, 80)
    powers = [power(lift=float(lift), sizes=sizes) for lift in lifts]
    assert np.isfinite(powers).all()
    assert np.all(np.diff(powers) >= -1e-9)
    assert powers[-1] == pytest.approx(1, abs=1e-3)


def test_covariate_does_the_work_of_more_users():
    half = Baseline(mean=2.0, variance=3.0, correlation=math.sqrt(0.5))
    lift = 0.02
    with_past = users_for_lift(half, lift=lift, power=0.8, confidence=0.95)
    without = users_for_lift(BASELINE, lift=lift, power=0.8, confidence=0.95)
    assert with_past.control / without.control == pytest.approx(0.5, abs=1e-3)


def test_rule_of_thumb():
    # 16 σ²/δ² users an arm for 80 % at 5 % (van Belle 2008, §2.1).
    needed = users_for_lift(BASELINE, lift=0.01, power=0.8, confidence=0.95)
    assert needed.control == pytest.approx(16 * 3 / 0.02**2, rel=0.03)


@pytest.mark.parametrize("sizes", [(4, 6), (700, 300), (400_000, 300_000)])
@pytest.mark.parametrize("wanted", [0.3, 0.8, 0.99])
def test_detectable_lift_has_the_power_asked_for(sizes, wanted):
    lift = detectable_lift(
        BASELINE,
        power=wanted,
        num_users_control=sizes[0],
        num_users_treatment=sizes[1],
        confidence=0.9,
    )
    assert lift > 0
    assert power(lift=lift, sizes=sizes, confidence=0.9) == pytest.approx(wanted, abs=1e-9)


def test_huge_lift_takes_two_users():
    needed = users_for_lift(BASELINE, lift=1e4, power=0.8, confidence=0.95)
    assert (needed.control, needed.treatment) == (2, 2)


def test_baseline_from_users_with_a_past():
    rng = np.random.default_rng(2)
    past = rng.normal(size=50_000)
    outcome = 4 + 0.6 * past + 0.8 * rng.normal(size=50_000)
    baseline = Baseline.of_moments(
        moments({"outcome": outcome, "past": past}),
        quantity=Quantity(numerator="outcome"),
        covariates=[Quantity(numerator="past")],
    )
    assert baseline.mean == pytest.approx(outcome.mean())
    assert baseline.variance == pytest.approx(outcome.var(ddof=1))
    assert baseline.correlation == pytest.approx(abs(np.corrcoef(outcome, past)[0, 1]))
    assert baseline.residual_variance == pytest.approx(0.64, abs=0.02)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"mean": 0.0, "variance": 1.0}, "above 0, got 0.0 and 1.0"),
        ({"mean": 1.0, "variance": 0.0}, "above 0, got 1.0 and 0.0"),
        ({"mean": math.nan, "variance": 1.0}, "above 0, got nan"),
        ({"mean": 1.0, "variance": 1.0, "correlation": 1.0}, "correlation"),
    ],
)
def test_impossible_baseline_is_an_error(numbers, message):
    with pytest.raises(ValueError, match=message):
        Baseline(**numbers)


def test_impossible_questions_are_errors():
    with pytest.raises(ValueError, match="at least 2 users an arm, got 1 in control"):
        power(lift=0.1, sizes=(1, 5))
    with pytest.raises(ValueError, match="confidence must be"):
        power(lift=0.1, confidence=1.0)
    with pytest.raises(ValueError, match=r"power must be between 0.05 \(the false alarms\)"):
        users_for_lift(BASELINE, lift=0.1, power=0.05, confidence=0.95)
    with pytest.raises(ValueError, match="lift must be finite and not 0"):
        users_for_lift(BASELINE, lift=0.0, power=0.8, confidence=0.95)
    with pytest.raises(ValueError, match="share_treatment"):
        users_for_lift(BASELINE, lift=0.1, power=0.8, confidence=0.95, share_treatment=1.0)


@pytest.mark.parametrize("share", [0.013, 0.104, 0.167, 0.896])
def test_two_users_in_the_smaller_arm_in_spite_of_rounding(share: float) -> None:
    needed = users_for_lift(
        Baseline(mean=1.0, variance=1e-9),
        lift=0.5,
        power=0.8,
        confidence=0.95,
        share_treatment=share,
    )
    assert min(needed.control, needed.treatment) >= 2


def test_a_metric_that_hardly_varies_needs_two_users_and_no_nan() -> None:
    nearly_constant = Baseline(mean=1e15, variance=0.1)
    needed = users_for_lift(nearly_constant, lift=0.01, power=0.8, confidence=0.95)
    assert (needed.control, needed.treatment) == (2, 2)
    with pytest.raises(ValueError, match="above -1"):
        users_for_lift(nearly_constant, lift=-2.0, power=0.8, confidence=0.95)
