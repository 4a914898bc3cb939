import numpy as np
import pytest

from ranker.experiment.sequential import asymptotic_sequence

SETTINGS = {"tightest_at_se": 0.5, "confidence": 0.95}


def robbins_margin(*, sd, num, rho, alpha):
    """As printed in Waudby-Smith et al. 2024, theorem 2.2."""
    inside = 2 * (num * rho**2 + 1) / (num**2 * rho**2)
    return sd * np.sqrt(inside * np.log(np.sqrt(num * rho**2 + 1) / alpha))


def margins(standard_errors, *, tightest_at_se, confidence=0.95):
    standard_errors = np.asarray(standard_errors, dtype=float)
    sequence = asymptotic_sequence(
        looks=np.arange(1, len(standard_errors) + 1),
        estimates=np.full(len(standard_errors), 3.0),
        standard_errors=standard_errors,
        tightest_at_se=tightest_at_se,
        confidence=confidence,
    )
    np.testing.assert_allclose(sequence.high + sequence.low, 6.0)
    return (sequence.high - sequence.low) / 2


def test_margins_are_the_papers():
    sd, planned, alpha = 4.2, 900, 0.1
    num = np.array([7, 60, 900, 5000])
    # the paper's approximation of the best rho, eq. (10), is within a few per cent of the best
    rho = np.sqrt((-2 * np.log(alpha) + np.log(-2 * np.log(alpha) + 1)) / planned)
    ours = margins(sd / np.sqrt(num), tightest_at_se=sd / np.sqrt(planned), confidence=1 - alpha)
    np.testing.assert_allclose(ours, robbins_margin(sd=sd, num=num, rho=rho, alpha=alpha), rtol=0.1)
    # and exactly the formula at the rho that is best, found by search
    rhos = rho * np.geomspace(0.5, 2, 20_001)
    best = rhos[np.argmin(robbins_margin(sd=sd, num=planned, rho=rhos, alpha=alpha))]
    expected = robbins_margin(sd=sd, num=num, rho=best, alpha=alpha)
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


def test_no_other_setting_is_tighter_where_it_should_be_tightest():
    settings = np.geomspace(0.05, 5, 41)
    widths = [margins([0.5], tightest_at_se=one)[0] for one in settings]
    assert settings[np.argmin(widths)] == pytest.approx(0.5)


def test_it_costs_little_over_a_single_look():
    ratio = margins([0.5], tightest_at_se=0.5)[0] / (1.959964 * 0.5)
    assert 1.3 < ratio < 1.6


def cumulative_means(*, num_paths, looks, rng):
    """Means and standard errors of standard normal values at each look, [paths, looks]."""
    steps = rng.normal(size=(num_paths, len(looks))) * np.sqrt(np.diff(looks, prepend=0))
    return np.cumsum(steps, axis=1) / looks, 1 / np.sqrt(looks)


@pytest.mark.parametrize("planned", [40, 1000])
def test_peeking_is_safe_and_naive_peeking_is_not(planned):
    looks = np.unique(np.geomspace(3, 1000, 61).astype(int))
    estimates, standard_errors = cumulative_means(
        num_paths=20_000, looks=looks, rng=np.random.default_rng(4)
    )
    margin = margins(standard_errors, tightest_at_se=1 / np.sqrt(planned))
    wrong = (np.abs(estimates) > margin).any(axis=1).mean()
    naive = (np.abs(estimates) > 1.96 * standard_errors).any(axis=1).mean()
    assert 0.01 < wrong < 0.05  # not so wide that it would be safe for no reason
    assert naive > 0.3


def test_looks_without_an_estimate_have_no_interval_and_decide_nothing():
    sequence = asymptotic_sequence(
        looks=np.array([2, 5, 6]),
        estimates=np.array([np.nan, 0.1, 9.0]),
        standard_errors=np.array([np.nan, 0.7, 0.6]),
        **SETTINGS,
    )
    assert np.isnan([sequence.low[0], sequence.high[0]]).all()
    assert sequence.low[1] < 0.1 < sequence.high[1]
    assert sequence.first_look_without(0.0) == 6
    assert sequence.first_look_without(0.1) == 6
    assert sequence.first_look_without(8.0) == 5
    assert (
        asymptotic_sequence(
            looks=np.array([3]), estimates=np.zeros(1), standard_errors=np.ones(1), **SETTINGS
        ).first_look_without(0.0)
        is None
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"looks": np.array([1, 2, 2])}, "looks must increase"),
        ({"estimates": np.zeros(2)}, "2 estimates"),
        ({"estimates": np.array([0.0, np.inf, 1.0])}, "finite"),
        ({"standard_errors": np.array([1.0, 0.0, 1.0])}, "above 0, got 0.0 at look 2"),
        ({"tightest_at_se": 0.0}, "tightest_at_se"),
        ({"confidence": 1.0}, "confidence"),
    ],
)
def test_bad_input_is_named(changes, message):
    arguments = {
        "looks": np.array([1, 2, 5]),
        "estimates": np.zeros(3),
        "standard_errors": np.ones(3),
        **SETTINGS,
        **changes,
    }
    with pytest.raises(ValueError, match=message):
        asymptotic_sequence(**arguments)
