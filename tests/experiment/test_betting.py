import math

import numpy as np
import pytest

from ranker.experiment.betting import betting_difference_sequence, betting_sequence

CONFIDENCE = 0.9
UNIT = {"lowest": 0.0, "highest": 1.0, "confidence": CONFIDENCE}


def means_left(values, *, grid, alpha):
    """Plain form: one gambler pair a candidate mean, one value after the other."""
    sum_so_far, squares, variance = 0.0, 0.0, 0.25
    ups, downs = np.ones(len(grid)), np.ones(len(grid))
    for t, value in enumerate(values, start=1):
        bet = math.sqrt(2 * math.log(2 / alpha) / (variance * t * math.log(t + 1)))
        for place, mean in enumerate(grid):
            ups[place] *= 1 + min(bet, 0.5 / mean) * (value - mean)
            downs[place] *= 1 - min(bet, 0.5 / (1 - mean)) * (value - mean)
        sum_so_far += value
        squares += (value - (0.5 + sum_so_far) / (t + 1)) ** 2
        variance = (0.25 + squares) / (t + 1)
    return np.maximum(ups, downs) / 2 < 1 / alpha


@pytest.mark.parametrize("num", [1, 6, 47])
def test_intervals_hold_the_candidates_that_a_plain_loop_leaves(num):
    values = np.random.default_rng(num).beta(0.5, 1.5, size=num)
    sequence = betting_sequence(values, looks=np.array([num]), **UNIT)
    grid = np.linspace(0, 1, 403)[1:-1]
    left = means_left(values, grid=grid, alpha=1 - CONFIDENCE)
    np.testing.assert_array_equal((grid >= sequence.low[0]) & (grid <= sequence.high[0]), left)
    assert sequence.estimate[0] == pytest.approx(values.mean())


@pytest.mark.parametrize("rate", [0.03, 0.5, 0.98])
def test_no_look_misses_the_truth_too_often_even_with_few_values(rate):
    rng, looks = np.random.default_rng(8), np.arange(1, 41)
    wrong = 0
    for _ in range(300):
        values = (rng.random(40) < rate).astype(float)
        sequence = betting_sequence(values, looks=looks[::4], **UNIT)
        wrong += ((sequence.low > rate) | (sequence.high < rate)).any()
    assert wrong / 300 <= 1 - CONFIDENCE


def test_intervals_shrink_to_the_mean_and_follow_the_scale():
    values = np.random.default_rng(2).beta(2, 5, size=3000)
    looks = np.array([10, 300, 3000])
    sequence = betting_sequence(values, looks=looks, **UNIT)
    widths = sequence.high - sequence.low
    assert (np.diff(widths) < 0).all()
    assert widths[-1] < 4 * 1.645 * 2 * values.std() / np.sqrt(3000)
    scaled = betting_sequence(
        7 * values - 3, looks=looks, lowest=-3.0, highest=4.0, confidence=CONFIDENCE
    )
    np.testing.assert_allclose(scaled.low, 7 * sequence.low - 3, atol=1e-9)
    np.testing.assert_allclose(scaled.high, 7 * sequence.high - 3, atol=1e-9)
    mirrored = betting_sequence(1 - values, looks=looks, **UNIT)
    np.testing.assert_allclose(mirrored.low, 1 - sequence.high, atol=1e-9)


def test_values_at_the_bounds_leave_the_bound_in():
    for value in (0.0, 1.0):
        sequence = betting_sequence(np.full(90, value), looks=np.array([90]), **UNIT)
        assert sequence.low[0] <= value <= sequence.high[0]
        assert sequence.high[0] - sequence.low[0] < 0.2


def test_a_difference_is_the_mean_of_pairs():
    rng = np.random.default_rng(5)
    control, treatment = (rng.random(700) < 0.3) * 1.0, (rng.random(811) < 0.7) * 1.0
    looks = np.array([4, 700])
    sequence = betting_difference_sequence(control, treatment, looks=looks, **UNIT)
    pairs = treatment[:700] - control
    assert sequence.estimate == pytest.approx([pairs[:4].mean(), pairs.mean()])
    plain = betting_sequence((pairs + 1) / 2, looks=looks, **UNIT)
    np.testing.assert_allclose(sequence.low, 2 * plain.low - 1, atol=1e-9)
    assert sequence.first_look_without(0.0) == 700
    assert sequence.low[1] < 0.4 < sequence.high[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"values": np.array([0.2, 1.2])}, "must lie in"),
        ({"values": np.array([0.2, np.nan])}, "got nan at entry 1"),
        ({"looks": np.array([1, 3])}, "from 1 to 2"),
        ({"looks": np.array([2, 1])}, "must increase"),
        ({"looks": np.array([0])}, "from 1 to 2"),
        ({"lowest": 1.0}, "lowest < highest"),
        ({"confidence": 0.0}, "confidence"),
    ],
)
def test_bad_input_is_named(changes, message):
    arguments = {"values": np.array([0.2, 0.4]), "looks": np.array([1, 2]), **UNIT, **changes}
    values = arguments.pop("values")
    with pytest.raises(ValueError, match=message):
        betting_sequence(values, **arguments)


def test_every_value_is_checked_also_of_users_without_a_partner():
    with pytest.raises(ValueError, match="must lie in"):
        betting_difference_sequence(
            np.array([0.1]), np.array([0.1, 7.0]), looks=np.array([1]), **UNIT
        )
