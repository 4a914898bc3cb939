from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from laboratory_runs import (
    at_most_verdict,
    near_verdict,
    repeat,
    share_figure,
    share_verdict,
    uniform_verdict,
)
from laboratory_users import draw_arm, draw_days, past_correlation
from scipy import stats


def coin(rng):
    return {"heads": float(rng.random() < 0.3), "draw": rng.random()}


def test_outcomes_depend_on_the_seed_and_not_on_the_number_of_workers():
    def draws(*, workers, seed, times=137):
        with ThreadPoolExecutor(workers) as executor:
            return repeat(coin, times=times, seed=seed, executor=executor)["draw"]

    one = draws(workers=1, seed=5)
    assert len(np.unique(one)) == 137
    np.testing.assert_array_equal(one, draws(workers=3, seed=5))
    np.testing.assert_array_equal(one[:100], draws(workers=1, seed=5, times=100))
    assert not np.isin(one, draws(workers=1, seed=6)).any()


def test_share_and_its_interval_by_beta_quantiles():
    hits = np.arange(40) < 7
    figure = share_figure(hits)
    assert figure.value == 7 / 40
    assert figure.ci_low == pytest.approx(stats.beta.ppf(0.025, 7, 34))
    assert figure.ci_high == pytest.approx(stats.beta.ppf(0.975, 8, 33))


def test_a_band_holds_sound_methods_and_not_others():
    hits = np.arange(10_000) < 500
    verdict = share_verdict("", hits, expected=0.05, family=7)
    assert verdict.holds
    # 3.8 standard errors for the two tails of .001 / 7
    assert verdict.high - 0.05 == pytest.approx(
        stats.norm.isf(0.0005 / 7) * np.sqrt(0.05 * 0.95 / 10_000), rel=0.05
    )
    assert not share_verdict("", np.arange(10_000) < 600, expected=0.05, family=7).holds
    assert not share_verdict("", np.arange(10_000) < 400, expected=0.05, family=7).holds
    assert not at_most_verdict("", np.arange(100) < 6, limit=0.05).holds
    assert at_most_verdict("", np.arange(100) < 5, limit=0.05).holds


def test_a_margin_is_kept_with_many_experiments_and_widened_with_few():
    many = near_verdict("", np.arange(5_000) < 2_500, expected=0.48, margin=0.03, family=16)
    assert (many.low, many.high) == pytest.approx((0.45, 0.51), abs=2e-3)
    few = near_verdict("", np.arange(50) < 25, expected=0.48, margin=0.03, family=16)
    assert few.low < 0.3
    assert few.high > 0.7


def test_uniformity_tells_even_from_uneven_p_values():
    even = (np.arange(1_000) + 0.5) / 1_000
    assert uniform_verdict("", even, family=3).holds
    assert not uniform_verdict("", even**1.3, family=3).holds


def test_users_are_what_their_truth_says():
    rng = np.random.default_rng(3)
    users = draw_arm(200_000, lift=0.1, rng=rng)
    assert users.seconds.mean() == pytest.approx(1.1 * 150, rel=0.02)
    assert users.seconds.sum() / users.visits.sum() == pytest.approx(1.1 * 30, rel=0.02)
    assert users.past_seconds.mean() == pytest.approx(150, rel=0.02)
    correlation = np.corrcoef(users.seconds, users.past_seconds)[0, 1]
    assert correlation == pytest.approx(past_correlation(), abs=0.02)
    np.testing.assert_allclose(np.bincount(users.row_users), users.visits)
    days = draw_days(30_000, num_days=3, rng=rng)
    assert days.seconds.shape == (30_000, 3)
    assert days.visits.mean() == pytest.approx(1.0, rel=0.03)
    assert days.seconds.mean() == pytest.approx(30, rel=0.05)
