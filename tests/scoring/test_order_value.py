import itertools

import numpy as np
import pytest

from ranker.config import ConfigError
from ranker.schema import TaskSpec
from ranker.score_weights import ScoreWeights
from ranker.scoring.combine import combine
from ranker.scoring.tuning.logged_lists import arrange_lists, rank_discounts
from ranker.scoring.tuning.order_value import Judged, OrderJudge, draw_users, family_importance
from ranker.scoring.tuning.score_terms import score_terms, weighable_tasks

NAN = np.nan


def task(name: str, kind: str, family: str, **fields: object) -> TaskSpec:
    values = {"name": name, "label": name, "kind": kind, "family": family, **fields}
    return TaskSpec.model_validate(values)


CLICK = task("click", "binary", "engagement")
TIME = task("time_s", "regression", "engagement")
LIKE = task("like", "binary", "satisfaction")
RATING = task("rating", "regression", "satisfaction", conditional_on="like")
HATE = task("hate", "binary", "satisfaction", direction="negative")
TASKS = (CLICK, TIME, LIKE, RATING, HATE)


def judge(
    users: list[int],
    lists: list[int],
    terms: np.ndarray,
    labels: dict[str, list[float]],
    *,
    judged: tuple[TaskSpec, ...],
    today: list[float],
    at: int = 10,
) -> OrderJudge:
    arranged = arrange_lists(
        users=np.array(users),
        lists=np.array(lists),
        items=np.arange(len(users)),
        kept=np.ones(len(users), dtype=bool),
    )
    return OrderJudge(
        arranged,
        terms=terms,
        labels={name: np.array(values) for name, values in labels.items()},
        judged=Judged(tasks=judged, importance=family_importance(judged, given={}, today={})),
        today=np.array(today),
        at=at,
    )


def test_values_and_changes_by_hand() -> None:
    """Two users' lists, ordered by either of two terms; a null label is in neither sum."""
    labels = {"click": [1.0, 0, 0, 1, 0], "hate": [NAN, 1, 0, 0, NAN]}
    terms = np.array([[3.0, 1], [2, 2], [1, 3], [1, 5], [4, 2]])
    made = judge(
        [0, 0, 0, 1, 1], [0, 0, 0, 1, 1], terms, labels, judged=(CLICK, HATE), today=[1.0, 0.0]
    )
    d1, d2, d3 = rank_discounts(num_ranks=3, at=3)
    # by the first term: rows 0 1 2 and 4 3; by the second: 2 1 0 and 3 4
    click_today = (d1 + d2) / (d1 + d2 + d3 + d1 + d2)
    click_other = (d3 + d1) / (d1 + d2 + d3 + d1 + d2)
    hate_today = d2 / (d2 + d3 + d2)
    hate_other = d2 / (d2 + d1 + d1)
    weights = np.array([[1.0, 0.0], [0.0, 1.0]])
    np.testing.assert_allclose(
        made.values(weights), [[click_today, hate_today], [click_other, hate_other]]
    )
    click = (click_other - click_today) / click_today
    hate = -(hate_other - hate_today) / hate_today
    np.testing.assert_allclose(made.changes(weights), [[0] * 4, [click, hate, click, hate]])
    assert made.judged.quantities == ("click", "hate", "engagement", "satisfaction")


def test_null_is_not_zero() -> None:
    labels = {"click": [1.0, 0], "like": [1.0, NAN]}
    terms = np.array([[1.0], [2.0]])
    made = judge([0, 0], [0, 0], terms, labels, judged=(CLICK, LIKE), today=[1.0])
    d1, d2 = rank_discounts(num_ranks=2, at=2)
    # the only observed like stands second, and its mean is still 1
    np.testing.assert_allclose(made.values(np.array([[1.0]])), [[d2 / (d1 + d2), 1.0]])


def test_ranks_below_the_last_that_counts() -> None:
    labels = {"click": [0.0, 1, 1], "like": [0.0, 1, 0]}
    terms = np.array([[3.0], [2.0], [1.0]])
    made = judge([0] * 3, [0] * 3, terms, labels, judged=(CLICK, LIKE), today=[1.0], at=1)
    np.testing.assert_array_equal(made.values(np.array([[1.0]])), [[0.0, 0.0]])
    # relative to a value of 0 there is no change
    assert np.isnan(made.changes(np.array([[1.0]]))).all()


def make_random(num_users: int, seed: int) -> tuple[OrderJudge, np.ndarray]:
    rng = np.random.default_rng(seed)
    users = np.repeat(np.arange(num_users), rng.integers(2, 7, size=num_users))
    num_rows = users.size
    like = (rng.random(num_rows) < 0.4).astype(float)
    like[rng.random(num_rows) < 0.3] = NAN
    labels = {
        "click": (rng.random(num_rows) < 0.5).astype(float).tolist(),
        "time_s": rng.exponential(9, num_rows).tolist(),
        "like": like.tolist(),
    }
    made = judge(
        users.tolist(),
        users.tolist(),
        rng.normal(size=(num_rows, 4)),
        labels,
        judged=(CLICK, TIME, LIKE),
        today=[1.0, 0.5, 0.2, 0.0],
    )
    return made, rng.random((5, 4))


def test_scaling_all_weights_changes_nothing() -> None:
    made, weights = make_random(23, seed=3)
    np.testing.assert_array_equal(made.values(weights), made.values(8 * weights))


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made, weights = make_random(23, seed=3)
    at_once = made.values(weights), made.changes_with_lower_ends(weights, confidence=0.9)
    monkeypatch.setattr("ranker.scoring.tuning.order_value.CHUNK_CELLS", 1)
    np.testing.assert_array_equal(made.values(weights), at_once[0])
    again = made.changes_with_lower_ends(weights, confidence=0.9)
    np.testing.assert_allclose(again, at_once[1], rtol=1e-12)


def test_intervals_resample_users_on_both_sides() -> None:
    """A replicate is the change in a log in which every user stands as often as drawn."""
    made, weights = make_random(17, seed=11)
    draws = draw_users(made.lists, num_replicates=43, rng=np.random.default_rng(5))
    numerators, denominators = made._user_sums(np.concatenate([weights[:1], [[1.0, 0.5, 0.2, 0]]]))
    expected = []
    for drawn in draws:
        values = [
            (numerators[c] * drawn).sum(axis=-1) / (denominators[c] * drawn).sum(axis=-1)
            for c in (0, 1)
        ]
        expected.append((values[0] - values[1]) / values[1])
    tails = np.quantile(np.array(expected), [0.05, 0.95], axis=0)
    found = made.estimates(weights[:1], confidence=0.9, draws=draws)[0].changes
    for k, name in enumerate(("click", "time_s", "like")):
        assert found[name].ci_low == pytest.approx(tails[0, k])
        assert found[name].ci_high == pytest.approx(tails[1, k])


def test_lower_ends_are_those_of_resampling_users() -> None:
    made, weights = make_random(401, seed=11)
    draws = draw_users(made.lists, num_replicates=4001, rng=np.random.default_rng(5))
    changes, lows = made.changes_with_lower_ends(weights, confidence=0.9)
    np.testing.assert_array_equal(changes, made.changes(weights))
    for c, found in enumerate(made.estimates(weights, confidence=0.9, draws=draws)):
        for q, change in enumerate(found.changes.values()):
            assert changes[c, q] == pytest.approx(change.value)
            half_width = change.value - change.ci_low
            assert changes[c, q] - lows[c, q] == pytest.approx(half_width, rel=0.12)
    # today's weights keep every constraint "at least as good as today" exactly
    today = made.changes_with_lower_ends(np.array([[1.0, 0.5, 0.2, 0.0]]), confidence=0.9)
    np.testing.assert_array_equal(today, np.zeros((2, 1, 5)))


def test_todays_weights_have_no_change_and_no_spread() -> None:
    made, _ = make_random(13, seed=2)
    draws = draw_users(made.lists, num_replicates=50, rng=np.random.default_rng(5))
    today = made.estimates(np.array([[1.0, 0.5, 0.2, 0.0]]), confidence=0.95, draws=draws)[0]
    for change in today.changes.values():
        assert (change.value, change.ci_low, change.ci_high) == (0.0, 0.0, 0.0)


def test_a_perfect_prediction_alone_is_best_for_its_task() -> None:
    """No order of a list beats that by the labels themselves (the rearrangement inequality)."""
    rng = np.random.default_rng(19)
    for _ in range(7):
        labels = {"click": rng.integers(0, 2, 5).astype(float).tolist(), "time_s": [1.0] * 5}
        orders = np.array(list(itertools.permutations(range(5))), dtype=float)
        terms = np.concatenate([np.array([labels["click"]]), orders]).T  # [5, 1 + 120]
        made = judge([0] * 5, [0] * 5, terms, labels, judged=(CLICK, TIME), today=[1.0] * 121)
        values = made.values(np.eye(121))[:, 0]
        assert values[0] == pytest.approx(values.max())


def test_importance_sums_to_one_in_each_family() -> None:
    tasks, given = (CLICK, TIME, LIKE, HATE), {"click": 3.0}
    shares = family_importance(tasks, given=given, today={"click": 7.0, "time_s": 1.0})
    np.testing.assert_allclose(shares, [0.75, 0.25, 0.5, 0.5])  # equal where all are 0


def test_importance_given_as_0_is_not_taken_for_equal() -> None:
    with pytest.raises(ConfigError, match=r"satisfaction tasks \['like', 'hate'\] all have 0"):
        family_importance((CLICK, LIKE, HATE), given={"like": 0.0}, today={"click": 1.0})


@pytest.mark.parametrize("combination", ["weighted_product", "weighted_sum", "rank_normalised_sum"])
def test_terms_order_as_the_score_does(combination: str) -> None:
    rng = np.random.default_rng(29)
    predictions = {
        "click": rng.random(61),
        "time_s": rng.exponential(30, 61) - 1,
        "like": rng.random(61) / 50,
        "rating": rng.uniform(1, 5, 61),
        "hate": rng.random(61) / 90,
    }
    today = ScoreWeights.model_validate({"combination": combination, "weights": {"click": 1.0}})
    weighable = weighable_tasks([*predictions], TASKS)
    lists = np.sort(rng.integers(0, 7, 61))
    terms = score_terms(predictions, today=today, tasks=TASKS, weighable=weighable, lists=lists)
    assert terms.shape == (61, 5)
    for _ in range(9):
        weights = rng.exponential(size=5)
        named = {t.name: float(w) for t, w in zip(weighable, weights, strict=True)}
        chosen = today.model_copy(update={"weights": named})
        score = combine(predictions, score_weights=chosen, tasks=TASKS, requests=lists)
        linear = terms @ weights
        expected = np.log(score) if combination == "weighted_product" else score
        np.testing.assert_allclose(linear, expected, rtol=1e-9)


def test_a_conditional_task_needs_its_condition() -> None:
    assert [t.name for t in weighable_tasks(["rating", "click"], TASKS)] == ["click"]
