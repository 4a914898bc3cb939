import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from ranker.experiment.group_sequential import (
    group_sequential_bounds,
    group_sequential_sequence,
    information_fractions,
    obrien_fleming_spending,
    pocock_spending,
)

SPENDINGS = [obrien_fleming_spending, pocock_spending]
FIVE = np.arange(1, 6) / 5


def bounds_of(spending, fractions, *, alpha=0.05):
    return group_sequential_bounds(fractions, spent=spending(fractions, alpha=alpha))


def test_bounds_are_the_published_ones():
    # Reboussin, DeMets, Kim & Lan (2000), program ld98: five equal looks, two-sided 5 %
    published = [4.8769, 3.3569, 2.6803, 2.2898, 2.0310]
    np.testing.assert_allclose(bounds_of(obrien_fleming_spending, FIVE), published, atol=2e-4)


@pytest.mark.parametrize("spending", SPENDINGS)
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_a_single_look_is_the_plain_test(spending, alpha):
    (bound,) = bounds_of(spending, np.ones(1), alpha=alpha)
    assert bound == pytest.approx(norm.isf(alpha / 2), rel=1e-9)


@pytest.mark.parametrize("spending", SPENDINGS)
def test_everything_is_spent_at_the_end_and_nothing_taken_back(spending):
    fractions = np.linspace(0.01, 1, 37)
    spent = spending(fractions, alpha=0.07)
    assert spent[-1] == pytest.approx(0.07)
    assert (np.diff(spent, prepend=0) > 0).all()


@pytest.mark.parametrize("spending", SPENDINGS)
@pytest.mark.parametrize("fractions", [FIVE, np.array([0.08, 0.5, 0.502, 1.0])])
def test_a_million_paths_pass_as_often_as_was_spent(spending, fractions):
    num_paths, rng = 1_000_000, np.random.default_rng(1)
    bounds = bounds_of(spending, fractions)
    running, inside = np.zeros(num_paths), np.ones(num_paths, dtype=bool)
    passed = []
    for fraction, step, bound in zip(fractions, np.diff(fractions, prepend=0), bounds, strict=True):
        running += rng.normal(scale=np.sqrt(step), size=num_paths)
        inside &= np.abs(running) / np.sqrt(fraction) <= bound
        passed.append(1 - inside.mean())
    spent = spending(fractions, alpha=0.05)
    margins = 4.5 * np.sqrt(spent / num_paths) + 1e-6
    assert (np.abs(np.array(passed) - spent) < margins).all()


@pytest.mark.parametrize("middle", [0.302, 0.45, 0.997])
def test_three_uneven_looks_are_a_normal_integral(middle):
    fractions = np.array([0.3, middle, 1.0])
    bounds = bounds_of(pocock_spending, fractions, alpha=0.1)
    correlations = np.sqrt(
        np.minimum.outer(fractions, fractions) / np.maximum.outer(*[fractions] * 2)
    )
    inside = multivariate_normal(cov=correlations, seed=3, abseps=1e-7, releps=1e-7)
    assert 1 - inside.cdf(bounds, lower_limit=-bounds) == pytest.approx(0.1, abs=2e-5)


def test_many_looks_at_little_information_are_fine():
    fractions = np.arange(1, 61) / 60
    bounds = bounds_of(obrien_fleming_spending, fractions)
    assert np.isinf(bounds[0])  # nothing to spend yet
    finite = bounds[np.isfinite(bounds)]
    assert (np.diff(finite) < 0).all()
    assert 2.1 < finite[-1] < 2.2


@pytest.mark.parametrize("spending", SPENDINGS)
def test_a_look_that_brings_nothing_new_decides_nothing_and_changes_nothing(spending):
    fractions = information_fractions(np.array([np.nan, 2.0, 2.5, 1.25, 1.0]), planned_se=1.0)
    np.testing.assert_allclose(fractions, [0, 0.25, 0.25, 0.64, 1])
    assert np.isinf(bounds_of(spending, np.zeros(3))).all()
    bounds = bounds_of(spending, fractions)
    assert np.isinf(bounds[[0, 2]]).all()
    np.testing.assert_allclose(
        bounds[[1, 3, 4]], bounds_of(spending, np.array([0.25, 0.64, 1.0])), rtol=1e-9
    )


@pytest.mark.parametrize("spending", SPENDINGS)
def test_what_a_look_too_close_to_the_last_one_does_not_spend_is_left_to_the_next(spending):
    close = bounds_of(spending, np.array([0.5, 0.5000001, 0.9, 1.0]))
    assert np.isinf(close[1])
    np.testing.assert_allclose(
        close[[0, 2, 3]], bounds_of(spending, np.array([0.5, 0.9, 1.0])), rtol=1e-9
    )


def test_after_the_plan_is_fulfilled_there_is_nothing_left():
    fractions = information_fractions(np.array([2.0, 1.0, 0.9]), planned_se=1.0)
    np.testing.assert_allclose(fractions, [0.25, 1, 1])
    bounds = bounds_of(pocock_spending, fractions)
    assert np.isfinite(bounds[:2]).all()
    assert np.isinf(bounds[2])


def test_repeated_intervals_are_bounds_times_standard_errors():
    sequence = group_sequential_sequence(
        looks=np.array([4, 8, 9]),
        estimates=np.array([1.0, 2.0, 2.1]),
        standard_errors=np.array([0.7, 0.5, 0.4]),
        bounds=np.array([3.0, 2.0, np.inf]),
    )
    np.testing.assert_allclose(sequence.low, [-1.1, 1.0, -np.inf])
    np.testing.assert_allclose(sequence.high, [3.1, 3.0, np.inf])
    assert sequence.first_look_without(0.0) == 8


@pytest.mark.parametrize(
    ("fractions", "spent", "message"),
    [
        ([0.5, 0.4, 1.0], [0.01, 0.02, 0.05], "fractions must be in"),
        ([0.5, 1.1], [0.01, 0.02], "fractions must be in"),
        ([0.5, 1.0], [0.03, 0.02], "must not decrease"),
        ([0.5, 1.0], [0.03], "as many fractions"),
        ([np.nan, 1.0], [0.01, 0.05], "fractions must be in"),
    ],
)
def test_bad_plans_are_named(fractions, spent, message):
    with pytest.raises(ValueError, match=message):
        group_sequential_bounds(np.array(fractions), spent=np.array(spent))


@pytest.mark.parametrize("spending", SPENDINGS)
def test_bad_spending_is_named(spending):
    with pytest.raises(ValueError, match="fractions of the planned information"):
        spending(np.array([-0.1, 0.5]), alpha=0.05)
    with pytest.raises(ValueError, match="alpha"):
        spending(np.array([0.5]), alpha=1.5)
    with pytest.raises(ValueError, match="planned_se"):
        information_fractions(np.ones(2), planned_se=0.0)
