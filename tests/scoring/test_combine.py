import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from ranker.config import ConfigError, digest, parse_config
from ranker.schema import MIN_WEIGHT, TaskSpec
from ranker.score_weights import ScoreWeights, check_score_weights, default_score_weights
from ranker.scoring.combine import (
    PROBABILITY_FLOOR,
    combine,
    rank_normalised_sum,
    unconditional,
    weighted_product,
    weighted_sum,
)


def task(name: str, kind: str, direction: str = "positive", **fields: object) -> TaskSpec:
    family = "satisfaction" if direction == "negative" else "engagement"
    values = {"name": name, "label": name, "family": family, "kind": kind, "direction": direction}
    return TaskSpec.model_validate({**values, **fields})


TASKS = (
    task("click", "binary", score_weight=1.0),
    task("watch_time_s", "regression", score_weight=0.5),
    task("dismiss", "binary", "negative", score_weight=0.25),
    task("load_time_s", "regression", "negative"),
    task("rated", "binary"),
    task("rating", "regression", conditional_on="rated"),
)
PREDICTIONS = {
    "click": np.array([0.5, 0.0, 1.0]),
    "watch_time_s": np.array([7.0, -2.0, 0.0]),
    "dismiss": np.array([0.25, 0.0, 1.0]),
    "load_time_s": np.array([3.0, 1.0, 0.0]),
    "rated": np.array([0.1, 0.5, 1.0]),
    "rating": np.array([4.0, 3.0, 5.0]),
}


def test_weighted_product_by_hand() -> None:
    weights = {"click": 2.0, "watch_time_s": 1.0, "dismiss": 1.0, "load_time_s": 0.5}
    eps = PROBABILITY_FLOOR
    expected = [
        (0.5 + eps) ** 2 * 8 * (0.75 + eps) / math.sqrt(4),
        eps**2 * 1 * (1 + eps) / math.sqrt(2),  # a negative time counts as none
        (1 + eps) ** 2 * 1 * eps / math.sqrt(1),
    ]
    np.testing.assert_allclose(weighted_product(PREDICTIONS, weights, TASKS), expected)


def test_weighted_sum_by_hand() -> None:
    weights = {"click": 2.0, "watch_time_s": 1.0, "dismiss": 4.0, "load_time_s": 0.5}
    expected = [1 + 7 - 1 - 1.5, 0 - 2 - 0 - 0.5, 2 + 0 - 4 - 0]
    np.testing.assert_allclose(weighted_sum(PREDICTIONS, weights, TASKS), expected)


def test_conditional_predictions_are_multiplied_once() -> None:
    multiplied = unconditional(PREDICTIONS, TASKS)
    np.testing.assert_allclose(multiplied["rating"], [0.4, 1.5, 5.0])
    for name in PREDICTIONS.keys() - {"rating"}:
        np.testing.assert_array_equal(multiplied[name], PREDICTIONS[name])
    assert PREDICTIONS["rating"].tolist() == [4.0, 3.0, 5.0]  # the caller's stays

    score_weights = ScoreWeights(combination="weighted_sum", weights={"rating": 1, "rated": 2})
    score = combine(PREDICTIONS, score_weights=score_weights, tasks=TASKS)
    np.testing.assert_allclose(score, [0.4 + 0.2, 1.5 + 1.0, 5.0 + 2.0])
    score = combine(PREDICTIONS, score_weights=ScoreWeights(weights={"rating": 1}), tasks=TASKS)
    np.testing.assert_allclose(score, [1.4, 2.5, 6.0])


def test_more_of_a_negative_task_is_worse() -> None:
    for name in ("dismiss", "load_time_s"):
        rising = {name: np.linspace(0, 1, 11)}
        assert (np.diff(weighted_product(rising, {name: 0.3}, TASKS)) < 0).all()
        assert (np.diff(weighted_sum(rising, {name: 0.3}, TASKS)) < 0).all()


weight_lists = st.lists(st.floats(0.01, 3.0), min_size=4, max_size=4)


@settings(max_examples=60, deadline=None)
@given(weights=weight_lists, factor=st.floats(0.1, 10.0), seed=st.integers(0, 1000))
def test_scaling_all_weights_keeps_the_order(
    weights: list[float], factor: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    names = ("click", "watch_time_s", "dismiss", "load_time_s")
    predictions = {name: rng.random(23) for name in names}
    weight_by_task = dict(zip(names, weights, strict=True))
    scaled = {name: weight * factor for name, weight in weight_by_task.items()}
    score = weighted_product(predictions, weight_by_task, TASKS)
    assert (score > 0).all()
    # p^f orders as p does, exactly so but for rounding
    np.testing.assert_allclose(
        weighted_product(predictions, scaled, TASKS), score**factor, rtol=1e-9
    )
    order = np.argsort(score)
    rescored = weighted_product(predictions, scaled, TASKS)[order]
    distinct = np.diff(score[order]) > 1e-9 * score[order][1:]
    assert (np.diff(rescored)[distinct] > 0).all()


def ranked_by_request(values: np.ndarray, requests: np.ndarray) -> np.ndarray:
    """scipy's ranks, request by request."""
    ranks = np.full(len(values), 0.5)
    for request in np.unique(requests):
        inside = requests == request
        if inside.sum() > 1:
            ranks[inside] = (rankdata(values[inside]) - 1) / (inside.sum() - 1)
    return ranks


few_values = st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.9, 1.0])


@settings(max_examples=80, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 4), few_values, few_values, st.floats(-3, 9)), max_size=29
    ),
    weights=st.lists(st.floats(0.01, 3.0), min_size=3, max_size=3),
    factor=st.floats(0.1, 10.0),
)
def test_rank_normalised_sum_is_that_of_ranks_within_each_request(
    rows: list[tuple[int, float, float, float]], weights: list[float], factor: float
) -> None:
    requests = np.array([row[0] for row in rows], dtype=np.int64)
    names = ("click", "dismiss", "watch_time_s")
    predictions = {
        name: np.array([row[number + 1] for row in rows]) for number, name in enumerate(names)
    }
    weight_by_task = dict(zip(names, weights, strict=True))
    score = rank_normalised_sum(predictions, weight_by_task, TASKS, requests=requests)
    expected = np.zeros(len(rows))
    for name, sign in zip(names, (1, -1, 1), strict=True):
        ranks = ranked_by_request(predictions[name], requests)
        expected += sign * weight_by_task[name] * ranks
    np.testing.assert_allclose(score, expected, atol=1e-12)
    scaled = {name: weight * factor for name, weight in weight_by_task.items()}
    rescored = rank_normalised_sum(predictions, scaled, TASKS, requests=requests)
    np.testing.assert_allclose(rescored, factor * score, atol=1e-9)


@pytest.mark.parametrize("factor", [3.0, 10.0, 1e-3])
def test_equal_sums_of_ranks_stay_equal_whatever_the_weights(factor: float) -> None:
    """Row 0 is second and first of 7, row 1 first and second: only their ids tell them apart."""
    rng = np.random.default_rng(6)
    ranks = np.stack([rng.permutation(7) for _ in range(2)])
    predictions = {"click": ranks[0] / 10, "watch_time_s": ranks[1] * 7.0}
    one = np.zeros(7, dtype=np.int64)
    for names in ({"click": 1.0, "watch_time_s": 1.0}, {"click": 0.1, "watch_time_s": 0.3}):
        scaled = {name: weight * factor for name, weight in names.items()}
        before, after = (
            rank_normalised_sum(predictions, w, TASKS, requests=one) for w in (names, scaled)
        )
        exact = names["click"] * 10 * ranks[0] + names["watch_time_s"] * 10 * ranks[1]
        order = np.argsort(-exact.round(6), kind="stable")
        for scores in (before, after):
            np.testing.assert_array_equal(np.argsort(-scores, kind="stable"), order)


def test_rank_normalised_sum_by_hand() -> None:
    requests = np.array([7, 7, 7, 2, 7])
    predictions = {
        "click": np.array([0.2, 0.5, 0.5, 0.9, 0.1]),  # ranks 1/3, 5/6, 5/6 | 1/2 | 0
        "dismiss": np.array([0.0, 0.3, 0.1, 0.4, 0.2]),  # ranks 0, 1, 1/3 | 1/2 | 2/3
    }
    score_weights = ScoreWeights(
        combination="rank_normalised_sum", weights={"click": 2, "dismiss": 1}
    )
    score = combine(predictions, score_weights=score_weights, tasks=TASKS, requests=requests)
    np.testing.assert_allclose(score, [2 / 3, 2 / 3, 4 / 3, 0.5, -2 / 3])
    # any rising function of a prediction gives the same score: no calibration can change it
    squared = {**predictions, "click": predictions["click"] ** 2}
    again = combine(squared, score_weights=score_weights, tasks=TASKS, requests=requests)
    np.testing.assert_array_equal(again, score)
    with pytest.raises(ValueError, match="needs the code of each candidate's request"):
        combine(predictions, score_weights=score_weights, tasks=TASKS)
    with pytest.raises(ValueError, match="expected 5 codes, one a candidate"):
        rank_normalised_sum(predictions, {"click": 1.0}, TASKS, requests=requests[:4])


def test_rows_do_not_influence_each_other() -> None:
    weights = {"click": 1.0, "rated": 0.3}
    for rows in ([1], [2, 0], []):
        some = {name: values[rows] for name, values in PREDICTIONS.items()}
        for combination in (weighted_product, weighted_sum):
            expected = combination(PREDICTIONS, weights, TASKS)[rows]
            np.testing.assert_array_equal(combination(some, weights, TASKS), expected)


def test_float32_predictions_are_combined_in_float64() -> None:
    single = {name: values.astype(np.float32) for name, values in PREDICTIONS.items()}
    for combination in (weighted_product, weighted_sum):
        score = combination(single, {"click": 1.0, "watch_time_s": 0.7}, TASKS)
        assert score.dtype == np.float64


def test_tasks_without_weight_need_no_predictions() -> None:
    some = {"click": np.array([0.2, 0.9])}
    score = weighted_product(some, {"click": 1.0, "rated": 0.0}, TASKS)
    np.testing.assert_allclose(score, [0.2 + PROBABILITY_FLOOR, 0.9 + PROBABILITY_FLOOR])


@pytest.mark.parametrize("combination", [weighted_product, weighted_sum])
@pytest.mark.parametrize(
    ("weights", "changed", "message"),
    [
        ({}, {}, "all score weights are 0"),
        ({"click": 0.0, "rated": 0.0}, {}, "all score weights are 0"),
        ({"click": -1.0}, {}, "weights.click.*greater than or equal to 0"),
        ({"click": math.nan}, {}, "weights.click"),
        ({"clicks": 1.0}, {}, "unknown task 'clicks'; did you mean 'click'.*watch_time_s"),
        ({"click": 1.0}, {"click": np.array([0.5, 1.5, -1.0])}, r"'click'.*1\.5 in row 1 .*: 2"),
        ({"click": 1.0}, {"click": np.array([0.5, 0.1, np.nan])}, "'click'.*nan in row 2"),
        ({"watch_time_s": 1.0}, {"watch_time_s": np.array([np.inf, 0, 0])}, "finite.*inf in row 0"),
        ({"click": 1.0, "rated": 1.0}, {"rated": np.array([0.5])}, "equal lengths"),
    ],
)
def test_bad_input_is_named(
    combination: object, weights: dict[str, float], changed: dict[str, np.ndarray], message: str
) -> None:
    assert callable(combination)
    with pytest.raises(ValueError, match=message):
        combination({**PREDICTIONS, **changed}, weights, TASKS)


def test_missing_predictions_are_named() -> None:
    with pytest.raises(ValueError, match="'rated' has a score weight but no predictions"):
        weighted_product({"click": np.array([0.5])}, {"rated": 1.0}, TASKS)
    with pytest.raises(ValueError, match="'rating' is conditional on 'rated'"):
        unconditional({"rating": np.array([0.5])}, TASKS)
    with pytest.raises(ValueError, match="unknown task 'scroll'"):
        unconditional({"scroll": np.array([0.5])}, TASKS)


def test_weights_that_leave_float64_are_refused_rather_than_tied() -> None:
    predictions = {"click": np.array([0.0, 1e-3]), "watch_time_s": np.array([300.0, 200.0])}
    with pytest.raises(ValueError, match="divide all weights by one number"):
        weighted_product(predictions, {"click": 100.0}, TASKS)
    with pytest.raises(ValueError, match="divide all weights by one number"):
        weighted_product(predictions, {"watch_time_s": 200.0}, TASKS)
    low, high = weighted_product(predictions, {"click": 40.0}, TASKS)
    assert 0 < low < high


def test_the_smallest_weight_tells_neighbours_of_float32_apart() -> None:
    p = np.random.default_rng(5).random(211, dtype=np.float32)
    seconds = 1_000 * p
    for name, values in (("click", p), ("watch_time_s", seconds)):
        above = np.nextafter(values, np.float32(np.inf))
        low, high = (
            weighted_product({name: v}, {name: MIN_WEIGHT}, TASKS) for v in (values, above)
        )
        far = values > 0.1  # below, 1 + seconds and p + ε round
        assert (low < high)[far].all()


def test_score_weights_default_to_the_schema() -> None:
    score_weights = default_score_weights(TASKS)
    assert score_weights.combination == "weighted_product"
    positive = {name: weight for name, weight in score_weights.weights.items() if weight > 0}
    assert positive == {"click": 1.0, "watch_time_s": 0.5, "dismiss": 0.25}
    check_score_weights(score_weights, tasks=TASKS)
    with pytest.raises(ConfigError, match="no task has a score_weight above 0"):
        default_score_weights([task("click", "binary")])


def test_score_weights_file_errors_name_the_key() -> None:
    with pytest.raises(ConfigError, match=r"w\.yaml: key 'weights\.click'.*got -1"):
        parse_config(ScoreWeights, {"weights": {"click": -1}}, source="w.yaml")
    with pytest.raises(ConfigError, match=r"w\.yaml: all score weights are 0"):
        parse_config(ScoreWeights, {"weights": {"click": 0}}, source="w.yaml")
    with pytest.raises(ConfigError, match="combination"):
        parse_config(ScoreWeights, {"weights": {"click": 1}, "combination": "max"}, source="w")


def test_digest_follows_the_meaning() -> None:
    one = ScoreWeights(weights={"click": 1, "rated": 0.5})
    same = ScoreWeights(weights={"rated": 0.5, "click": 1.0})
    assert digest(one) == digest(same)
    assert digest(one) != digest(ScoreWeights(weights={"click": 1, "rated": 0.6}))
    assert digest(one) != digest(ScoreWeights(combination="weighted_sum", weights=one.weights))
