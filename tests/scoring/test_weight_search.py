import sys

import numpy as np
import pytest

from ranker.config import ConfigError
from ranker.score_weights import ScoreWeights
from ranker.scoring.tuning.weight_search import (
    SearchSpace,
    draw_around,
    evolve,
    landmarks,
    require_optuna,
)

TODAY = np.array([1.0, 0.0, 0.25, 0.3, 0.05])
FREE = np.array([True, True, False, True, True])
SPACE = SearchSpace(today=TODAY, free=FREE, spread=7.0)


def test_only_free_weights_change_and_their_sum_stays() -> None:
    drawn = draw_around(SPACE, num_candidates=503, rng=np.random.default_rng(3))
    assert drawn.shape == (503, 5)
    assert (drawn >= 0).all()
    assert (drawn[:, 2] == 0.25).all()
    # four digits are kept
    np.testing.assert_allclose(drawn[:, FREE].sum(axis=1), 1.35, rtol=1e-3)


def test_candidates_reach_far_and_stay_near() -> None:
    drawn = draw_around(SPACE, num_candidates=2003, rng=np.random.default_rng(3))
    both = (drawn[:, 0] > 0) & (drawn[:, 3] > 0)
    ratio = drawn[both, 3] / drawn[both, 0] / (TODAY[3] / TODAY[0])
    assert 7 < ratio.max() <= 7 * 7 * 1.001
    assert (drawn == 0).any(axis=0).tolist() == [True, True, False, True, True]
    # a task that weighs nothing today is tried too
    assert (drawn[:, 1] > 0).mean() > 0.3
    # of 4 free weights, 1 to 4 change: both of a pair stay in (1/2 + 1/6 + 0 + 0) / 4 of the cases
    kept = np.isclose(drawn[:, 3], drawn[:, 4] * TODAY[3] / TODAY[4], rtol=2e-3)
    assert kept.mean() == pytest.approx(1 / 6, abs=0.02)


def test_the_same_seed_draws_the_same() -> None:
    once, again = (
        draw_around(SPACE, num_candidates=11, rng=np.random.default_rng(9)) for _ in range(2)
    )
    np.testing.assert_array_equal(once, again)


def test_four_digits_are_kept() -> None:
    vectors = SPACE.vectors(np.array([[1 / 3, 1e-7, 2.0, 1.0]]))
    assert vectors.tolist() == [[0.135, 4.05e-08, 0.25, 0.81, 0.405]]
    large = SearchSpace(today=TODAY * 1e6, free=FREE, spread=7.0)
    assert large.vectors(np.array([[1 / 3, 0.0, 1 / 3, 1 / 3]])).tolist() == [
        [450000.0, 0.0, 250000.0, 450000.0, 450000.0]
    ]


def test_no_weight_is_drawn_that_a_file_may_not_hold() -> None:
    tiny = SearchSpace(today=TODAY * 1e-7, free=FREE, spread=1e6)
    drawn = draw_around(tiny, num_candidates=211, rng=np.random.default_rng(7))
    assert any(1e-8 in vector for vector in drawn)
    for vector in drawn.tolist():
        ScoreWeights(weights=dict(zip("abcde", vector, strict=True)))


def test_landmarks() -> None:
    marks = landmarks(SPACE, ["a", "b", "c", "d", "e"])
    assert [*marks] == [
        *("only a", "only b", "only d", "only e"),
        *("without a", "without d", "without e"),
    ]
    assert marks["only b"].tolist() == [0, 1, 0, 0, 0]
    assert marks["without d"].tolist() == [1, 0, 0.25, 0, 0.05]


def test_evolution_finds_what_it_is_asked_for() -> None:
    pytest.importorskip("optuna", reason="needs the extra `tune`")

    def objectives(weights: np.ndarray) -> np.ndarray:
        share = weights[:, 3] / weights.sum(axis=1)
        return np.stack([-((share - 0.6) ** 2), np.ones(len(weights))], axis=1)

    tried = evolve(SPACE, objectives, num_candidates=607, seed=4)
    assert tried.shape == (607, 5)
    np.testing.assert_allclose(tried[0][FREE].sum(), 1.35, rtol=1e-3)
    distance = np.abs(tried[:, 3] / tried.sum(axis=1) - 0.6)
    assert np.median(distance[-100:]) < np.median(distance[:100]) / 2
    np.testing.assert_array_equal(
        tried, evolve(SPACE, objectives, num_candidates=607, seed=4), "the seed decides"
    )


def test_without_optuna_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[tune\]'"):
        require_optuna()
