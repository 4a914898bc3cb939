import numpy as np
import pytest
from scipy.stats.mstats import winsorize

from ranker.experiment.winsorising import WinsorLimits, winsor_limits


def test_both_tails_are_pulled_in_as_scipy_does():
    values = np.random.default_rng(0).normal(size=1_001)
    limits = winsor_limits(values, quantile=0.95)
    np.testing.assert_array_equal(limits.apply(values), np.asarray(winsorize(values, (0.05, 0.05))))


def test_limits_are_of_both_arms_together():
    control, treatment = np.arange(90.0), np.full(10, 500.0)
    limits = winsor_limits(np.concatenate([control, treatment]), quantile=0.9)
    assert limits == WinsorLimits(low=9, high=500)
    np.testing.assert_array_equal(limits.apply(np.array([0.0, 20, 900])), [9, 20, 500])


def test_rare_event_is_not_wiped_out():
    values = np.array([0.0] * 997 + [1.0, 2.0, 3.0])
    limits = winsor_limits(values, quantile=0.99)
    np.testing.assert_array_equal(limits.apply(values), values)


def test_unobserved_stays_so():
    values = np.array([np.nan, 1.0, 2, 3, 4, 50, np.nan])
    limits = winsor_limits(values, quantile=0.75)
    np.testing.assert_array_equal(limits.apply(values), [np.nan, 2, 2, 3, 4, 4, np.nan])
    assert np.isnan(winsor_limits(np.full(3, np.nan), quantile=0.9).apply(values[:1])).all()


@pytest.mark.parametrize("quantile", [0.3, 1.0, 99])
def test_quantile_out_of_range_is_an_error(quantile):
    with pytest.raises(ValueError, match=r"quantile must be in \[0.5, 1\)"):
        winsor_limits(np.arange(5.0), quantile=quantile)


def test_infinite_value_is_an_error():
    with pytest.raises(ValueError, match="winsorise: expected finite values, got inf"):
        winsor_limits(np.array([1.0, np.inf]), quantile=0.9)
