import numpy as np
import pytest

from ranker.experiment.outcomes import (
    ExaminationCurve,
    draw_outcomes,
    expected_outcomes,
    full_examination,
    power_examination,
)
from ranker.schema import TaskSpec

CLICK = TaskSpec(name="click", label="c", family="engagement", kind="binary")
WATCH = TaskSpec(name="watch_s", label="w", family="engagement", kind="regression")
RATING = TaskSpec(
    name="rating", label="r", family="satisfaction", kind="regression", minimum=1.0,
    conditional_on="click",
)  # fmt: skip
TASKS = (CLICK, WATCH, RATING)
NUM_DRAWS = 200_000


def test_curves_by_hand():
    ranks = np.array([1, 4, 2, 2])
    np.testing.assert_allclose(power_examination(eta=1, num_ranks=4).at(ranks), [1, 0.25, 0.5, 0.5])
    np.testing.assert_allclose(
        power_examination(eta=0.5, num_ranks=5).at(ranks), [1, 0.5, 2**-0.5, 2**-0.5]
    )
    assert full_examination(num_ranks=4).at(ranks).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("probabilities", [(), (0.9, 0.5), (1.0, 1.5), (1.0, float("nan"))])
def test_impossible_curves_are_refused(probabilities):
    with pytest.raises(ValueError, match="examination curve 'mine'"):
        ExaminationCurve(name="mine", probabilities=probabilities)


def test_curve_too_short_is_named():
    with pytest.raises(ValueError, match="covers ranks 1 to 3, got 2 to 5"):
        full_examination(num_ranks=3).at(np.array([2, 5]))
    with pytest.raises(ValueError, match="eta must be >= 0"):
        power_examination(eta=-1, num_ranks=3)


def test_expected_outcomes_by_hand():
    expected = expected_outcomes(
        {"click": np.array([0.2, 0.4]), "watch_s": np.array([9.0, 3.0]),
         "rating": np.array([4.0, 2.0])},
        examination=np.array([1.0, 0.5]),
        tasks=TASKS,
    )  # fmt: skip
    np.testing.assert_allclose(expected["click"], [0.2, 0.2])
    np.testing.assert_allclose(expected["watch_s"], [9.0, 1.5])
    np.testing.assert_allclose(expected["rating"], [0.8, 0.4])  # only after a click


def draw(*, examination, relative_variances=None):
    return draw_outcomes(
        {"click": np.full(NUM_DRAWS, 0.3), "watch_s": np.full(NUM_DRAWS, 12.0),
         "rating": np.full(NUM_DRAWS, 3.5)},
        examination=np.full(NUM_DRAWS, examination),
        tasks=TASKS,
        relative_variances=relative_variances or {"watch_s": 2.0, "rating": 0.1},
        rng=np.random.default_rng(3),
    )  # fmt: skip


@pytest.mark.parametrize("examination", [1.0, 0.4])
def test_draws_have_the_expected_mean(examination):
    drawn = draw(examination=examination)
    expected = {"click": 0.3, "watch_s": 12.0, "rating": 0.3 * 3.5}
    for task, mean in expected.items():
        values = drawn[task]
        standard_error = values.std() / NUM_DRAWS**0.5
        assert abs(values.mean() - mean * examination) < 4 * standard_error


def test_regression_draws_have_the_asked_for_variance_and_minimum():
    drawn = draw(examination=1.0)
    assert drawn["watch_s"].var() == pytest.approx(2.0 * 12.0**2, rel=0.03)
    ratings = drawn["rating"][drawn["click"] == 1]
    assert ratings.min() >= 1
    assert ratings.var() == pytest.approx(0.1 * 2.5**2, rel=0.03)


def test_examination_is_shared_and_conditions_hold():
    drawn = draw(examination=0.4)
    unseen = drawn["watch_s"] == 0
    assert unseen.mean() == pytest.approx(0.6, abs=0.01)
    assert not drawn["click"][unseen].any()
    assert not drawn["rating"][drawn["click"] == 0].any()


def test_no_variance_draws_the_mean_itself():
    drawn = draw(examination=1.0, relative_variances={"watch_s": 0.0, "rating": 0.0})
    assert np.unique(drawn["watch_s"]).tolist() == [12.0]


def test_unpredictable_stays_missing():
    drawn = draw_outcomes(
        {"click": np.array([np.nan, 1.0])},
        examination=np.ones(2),
        tasks=(CLICK,),
        relative_variances={},
        rng=np.random.default_rng(0),
    )
    np.testing.assert_array_equal(drawn["click"], [np.nan, 1.0])
