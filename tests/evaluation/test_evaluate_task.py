"""`evaluate_task` against scikit-learn and by hand; masks, pairing, bad input."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from ranker.evaluation.evaluate import evaluate_task
from ranker.evaluation.intervals import BootstrapSettings
from ranker.evaluation.metrics import METRICS, metric_of

FEW = BootstrapSettings(num_replicates=60)


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


def binary_log(num_rows=421, num_users=37, seed=0):
    """Rows of users with two lists each, and three models: good, noisy, constant."""
    rng = np.random.default_rng(seed)
    users = rng.integers(num_users, size=num_rows) * 3 + 5  # codes with gaps
    lists = users * 2 + rng.integers(2, size=num_rows)
    logits = rng.normal(size=num_rows)
    labels = (rng.random(num_rows) < sigmoid(logits)).astype(float)
    predictions = {
        "good": sigmoid(logits),
        "noisy": sigmoid(logits + rng.normal(size=num_rows)),
        "constant": np.full(num_rows, 0.25),
    }
    return labels, predictions, users, lists


def evaluate(labels, predictions, users, lists, kind="binary", settings=FEW, seed=1):
    return evaluate_task(
        kind=kind,
        labels=labels,
        predictions_by_model=predictions,
        users=users,
        lists=lists,
        rng=np.random.default_rng(seed),
        settings=settings,
    )


def values_of(evaluation, model):
    return {name: estimate.value for name, estimate in evaluation.estimates[model].items()}


def test_lists_are_ordered_by_predictions_of_their_own():
    labels, predictions, users, lists = binary_log()
    evaluation = evaluate_task(
        kind="binary",
        labels=labels,
        predictions_by_model={"model": predictions["noisy"]},
        list_predictions_by_model={"model": predictions["good"]},
        users=users,
        lists=lists,
        rng=np.random.default_rng(1),
        settings=FEW,
    )
    found = values_of(evaluation, "model")
    apart = evaluate(labels, predictions, users, lists)
    for metric, value in found.items():
        model = "good" if metric in ("gauc", "ndcg@5") else "noisy"
        assert value == values_of(apart, model)[metric]


def test_every_model_needs_predictions_of_both_kinds():
    labels, predictions, users, lists = binary_log()
    with pytest.raises(ValueError, match="of different models"):
        evaluate_task(
            kind="binary",
            labels=labels,
            predictions_by_model=predictions,
            list_predictions_by_model={"good": predictions["good"]},
            users=users,
            lists=lists,
            rng=np.random.default_rng(1),
            settings=FEW,
        )


def test_binary_values_equal_scikit_learn():
    labels, predictions, users, lists = binary_log()
    evaluation = evaluate(labels, predictions, users, lists)
    assert evaluation.rows == 421
    assert evaluation.positives == labels.sum()
    assert evaluation.users == len(set(users.tolist()))
    base = labels.mean()
    base_loss = sk.log_loss(labels, np.full(421, base))
    for model, predicted in predictions.items():
        loss = sk.log_loss(labels, predicted)
        aucs, sizes, ndcgs = [], [], []
        for code in set(lists.tolist()):
            inside = lists == code
            if 0 < labels[inside].mean() < 1:
                aucs.append(sk.roc_auc_score(labels[inside], predicted[inside]))
                sizes.append(inside.sum())
            if labels[inside].any() and inside.sum() > 1:
                ndcgs.append(sk.ndcg_score(labels[None, inside], predicted[None, inside], k=5))
            elif labels[inside].any():
                ndcgs.append(1.0)
        expected = {
            "auc": sk.roc_auc_score(labels, predicted),
            "gauc": np.average(aucs, weights=sizes),
            "log_loss": loss,
            "normalised_entropy": loss / base_loss,
            "calibration_ratio": predicted.mean() / base,
            "ndcg@5": np.mean(ndcgs),
        }
        values = values_of(evaluation, model)
        assert {k: values[k] for k in expected} == pytest.approx(expected, rel=1e-9)


def test_constant_predictions_are_worth_nothing_and_all_in_one_bin():
    labels, predictions, users, lists = binary_log()
    values = values_of(evaluate(labels, predictions, users, lists), "constant")
    assert values["auc"] == pytest.approx(0.5)
    assert values["gauc"] == pytest.approx(0.5)
    assert values["ece"] == pytest.approx(abs(0.25 - labels.mean()))


def test_ece_by_hand_with_bins_of_equal_mass():
    """45 rows: 15 bins of 3; in bin b the predictions average to its centre."""
    predictions = (np.arange(45) + 0.5) / 45
    labels = (np.arange(45) % 2).astype(float)
    users = np.arange(45) % 11
    expected = np.mean(
        [abs(predictions[b : b + 3].mean() - labels[b : b + 3].mean()) for b in range(0, 45, 3)]
    )
    shuffle = np.random.default_rng(3).permutation(45)
    evaluation = evaluate(labels[shuffle], {"m": predictions[shuffle]}, users, users)
    assert values_of(evaluation, "m")["ece"] == pytest.approx(expected)


def test_certain_and_wrong_predictions_have_a_finite_loss():
    labels = np.tile([0.0, 1.0], 30)
    users = np.arange(60) % 13
    values = values_of(evaluate(labels, {"m": 1 - labels}, users, users), "m")
    assert values["log_loss"] == pytest.approx(-np.log(1e-7))
    assert values["auc"] == 0


def test_regression_values_equal_scikit_learn():
    rng = np.random.default_rng(2)
    labels = rng.exponential(size=83)
    predicted = labels + rng.normal(scale=0.3, size=83)  # some below 0
    users = rng.integers(19, size=83)
    values = values_of(evaluate(labels, {"m": predicted}, users, users, kind="regression"), "m")
    clipped = predicted.clip(0)
    expected = {
        "mae": sk.mean_absolute_error(labels, predicted),
        "rmse": sk.root_mean_squared_error(labels, predicted),
        "mae_log1p": sk.mean_absolute_error(np.log1p(labels), np.log1p(clipped)),
        "rmse_log1p": sk.root_mean_squared_error(np.log1p(labels), np.log1p(clipped)),
        "calibration_ratio": predicted.mean() / labels.mean(),
    }
    assert {k: values[k] for k in expected} == pytest.approx(expected, rel=1e-9)
    pairs = [(i, j) for i in range(83) for j in range(83) if labels[i] < labels[j]]
    expected_xauc = np.mean([predicted[i] < predicted[j] for i, j in pairs])
    assert values["xauc"] == pytest.approx(expected_xauc)


def test_sampled_xauc_is_close_to_that_of_all_pairs():
    rng = np.random.default_rng(4)
    labels = rng.normal(size=1501) + 10
    predicted = labels + rng.normal(size=1501)
    users = rng.integers(99, size=1501)
    few = BootstrapSettings(num_replicates=2)
    sampled = evaluate(labels, {"m": predicted}, users, users, "regression", few)
    order = np.argsort(labels)
    above = predicted[order][None, :] > predicted[order][:, None]
    exact = above[np.triu_indices(1501, k=1)].mean()
    # 75,050 pairs: four standard errors of plain sampling
    assert values_of(sampled, "m")["xauc"] == pytest.approx(exact, abs=4 * 0.5 / np.sqrt(75_050))


def test_regression_metrics_that_labels_do_not_allow_are_none_with_a_reason():
    labels = np.linspace(-3, 1, 41)
    users = np.arange(41) % 12
    estimates = evaluate(labels, {"m": labels}, users, users, kind="regression").estimates["m"]
    assert estimates["mae_log1p"].value is None
    assert "labels >= 0" in estimates["rmse_log1p"].reason
    assert "mean label" in estimates["calibration_ratio"].reason
    assert estimates["mae"].value == 0
    constant = evaluate(np.full(41, 2.0), {"m": labels}, users, users, kind="regression")
    assert constant.estimates["m"]["xauc"].reason == "all labels are equal"


def test_rows_without_a_label_count_for_nothing():
    labels, predictions, users, lists = binary_log()
    hidden = np.random.default_rng(5).random(labels.size) < 0.3
    masked = np.where(hidden, np.nan, labels)
    whole = evaluate(masked, predictions, users, lists)
    kept = ~hidden
    part = evaluate(
        labels[kept], {m: p[kept] for m, p in predictions.items()}, users[kept], lists[kept]
    )
    assert whole == part
    assert whole.rows == kept.sum()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_row_order_does_not_matter(seed):
    labels, predictions, users, lists = binary_log(num_rows=211)
    shuffle = np.random.default_rng(seed).permutation(211)
    few = BootstrapSettings(num_replicates=12)
    before = evaluate(labels, predictions, users, lists, settings=few)
    after = evaluate(
        labels[shuffle],
        {m: p[shuffle] for m, p in predictions.items()},
        users[shuffle],
        lists[shuffle],
        settings=few,
    )
    for model in predictions:
        for name, estimate in before.estimates[model].items():
            other = after.estimates[model][name]
            assert (other.value, other.ci_low, other.ci_high) == pytest.approx(
                (estimate.value, estimate.ci_low, estimate.ci_high), abs=1e-9
            )


def test_same_seed_same_intervals_and_intervals_hold_their_values():
    labels, predictions, users, lists = binary_log()
    first = evaluate(labels, predictions, users, lists)
    assert first == evaluate(labels, predictions, users, lists)
    assert first != evaluate(labels, predictions, users, lists, seed=2)
    for by_metric in first.estimates.values():
        for estimate in by_metric.values():
            assert estimate.ci_low <= estimate.value <= estimate.ci_high


def test_block_sizes_do_not_change_results(monkeypatch):
    labels, predictions, users, lists = binary_log()
    before = evaluate(labels, predictions, users, lists)
    monkeypatch.setattr("ranker.evaluation.evaluate.MAX_BLOCK", 7)
    after = evaluate(labels, predictions, users, lists)
    for name, estimate in before.estimates["noisy"].items():
        assert after.estimates["noisy"][name].ci_low == pytest.approx(estimate.ci_low, rel=1e-9)


def test_identical_models_differ_by_exactly_nothing():
    labels, predictions, users, lists = binary_log()
    twins = {"a": predictions["noisy"], "b": predictions["noisy"].copy()}
    evaluation = evaluate(labels, twins, users, lists)
    for name, difference in evaluation.difference("a", "b").items():
        assert (difference.value, difference.ci_low, difference.ci_high) == (0, 0, 0)
        assert evaluation.verdict("a", "b", name) == "cannot tell"


def test_differences_are_paired_and_antisymmetric():
    labels, predictions, users, lists = binary_log(num_rows=1203)
    near = predictions | {"near": sigmoid(1.1 * np.log(1 / (1 / predictions["good"] - 1)) + 0.01)}
    near["near"][::50] *= 0.9
    evaluation = evaluate(labels, near, users, lists)
    difference = evaluation.difference("good", "near")["auc"]
    a, b = evaluation.estimates["good"]["auc"], evaluation.estimates["near"]["auc"]
    assert difference.value == pytest.approx(a.value - b.value)
    assert difference.ci_high - difference.ci_low < 0.5 * (a.ci_high - a.ci_low)
    back = evaluation.difference("near", "good")["auc"]
    assert back.ci_low == pytest.approx(-difference.ci_high)


@pytest.mark.parametrize("name", ["auc", "log_loss", "normalised_entropy", "gauc"])
def test_verdict_follows_the_direction_of_the_metric(name):
    labels, predictions, users, lists = binary_log(num_rows=1203)
    evaluation = evaluate(labels, predictions, users, lists)
    assert evaluation.verdict("good", "constant", name) == "better"
    assert evaluation.verdict("constant", "good", name) == "worse"


def test_calibration_ratios_are_compared_by_their_distance_from_one():
    labels, predictions, users, lists = binary_log(num_rows=1203)
    models = {
        "half": predictions["good"] / 2,
        "right": predictions["good"],
        "high": predictions["good"] * 0.2 + 0.8,
    }
    evaluation = evaluate(labels, models, users, lists)
    ratio_half, ratio_high = (
        evaluation.estimates[m]["calibration_ratio"].value for m in ("half", "high")
    )
    assert ratio_half < 1 < ratio_high
    difference = evaluation.difference("half", "high")["calibration_ratio"]
    expected = abs(np.log(ratio_half)) - abs(np.log(ratio_high))
    assert difference.value == pytest.approx(expected)
    assert evaluation.verdict("half", "right", "calibration_ratio") == "worse"
    assert evaluation.verdict("right", "high", "calibration_ratio") == "better"


@pytest.mark.parametrize(
    ("num_positives", "num_negatives", "reason"),
    [
        (19, 60, "fewer than 20 positives (19)"),
        (60, 19, "fewer than 20 negatives (19)"),
        (0, 0, "fewer than 20 positives (0)"),
        (1, 0, "fewer than 20 positives (1)"),
    ],
)
def test_too_few_labels_give_no_value_but_a_reason(num_positives, num_negatives, reason):
    labels = np.repeat([1.0, 0.0, np.nan], [num_positives, num_negatives, 7])
    users = np.arange(labels.size)
    predictions = np.full(labels.size, 0.5)
    evaluation = evaluate(labels, {"a": predictions, "b": predictions}, users, users)
    for estimate in evaluation.estimates["a"].values():
        assert estimate.value is None
        assert estimate.reason == reason
    assert evaluation.difference("a", "b")["auc"].reason == reason
    assert evaluation.verdict("a", "b", "auc") == "cannot tell"


def test_no_rows_at_all():
    empty, codes = np.empty(0), np.empty(0, dtype=int)
    for kind in ("binary", "regression"):
        evaluation = evaluate(empty, {"m": empty}, codes, codes, kind=kind)
        assert evaluation.rows == 0
        assert all(estimate.value is None for estimate in evaluation.estimates["m"].values())


def test_few_users_get_values_without_intervals():
    labels, predictions, users, _ = binary_log()
    users = users % 9
    evaluation = evaluate(labels, predictions, users, users)
    estimate = evaluation.estimates["good"]["auc"]
    assert estimate.value == pytest.approx(sk.roc_auc_score(labels, predictions["good"]))
    assert (estimate.ci_low, estimate.ci_high) == (None, None)
    assert "fewer than 10 users" in estimate.reason
    assert evaluation.verdict("good", "constant", "auc") == "cannot tell"


def test_positives_of_a_single_user_give_no_interval():
    """That user is missing from (1 - 1/n)^n, about 37 %, of the replicates."""
    users = np.repeat(np.arange(31), 3)
    users = np.concatenate([users, np.full(25, 40)])
    labels = (users == 40).astype(float)
    predictions = np.linspace(0.1, 0.9, labels.size)
    estimate = evaluate(labels, {"m": predictions}, users, users).estimates["m"]["auc"]
    assert estimate.value == 1
    assert estimate.ci_low is None
    assert "bootstrap replicates" in estimate.reason


def test_gauc_without_a_mixed_list_has_a_reason():
    labels = np.tile([0.0, 1.0], 25)
    users = np.arange(50)
    estimates = evaluate(labels, {"m": np.full(50, 0.5)}, users, users).estimates["m"]
    assert estimates["gauc"].value is None
    assert "both a positive and a negative" in estimates["gauc"].reason
    assert estimates["ndcg@5"].value == 1


def test_json_has_the_form_of_metrics_json():
    labels, predictions, users, lists = binary_log()
    evaluation = evaluate(labels, predictions, users, lists, settings=BootstrapSettings(ndcg_at=3))
    form = json.loads(json.dumps(evaluation.to_json("good")))
    names = [n.replace("ndcg", "ndcg@3") for n, m in METRICS.items() if "binary" in m.kinds]
    assert sorted(form) == sorted(["kind", "rows", "positives", *names])
    assert set(form["ndcg@3"]) == {"value", "ci_low", "ci_high"}
    regression = evaluate(labels, predictions, users, lists, kind="regression").to_json("good")
    assert "positives" not in regression
    assert all(metric_of(name).label for name in evaluation.estimates["good"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.nan, "model 'good'.*got nan in row 4"),
        (np.inf, "model 'good'.*probabilities"),
        (1.5, r"model 'good'.*probabilities in \[0, 1\], got 1.5 in row 4"),
        (-0.1, "model 'good'"),
    ],
)
def test_bad_predictions_are_refused_by_name(wrong, message):
    labels, predictions, users, lists = binary_log()
    predictions["good"][4] = wrong
    with pytest.raises(ValueError, match=message):
        evaluate(labels, predictions, users, lists)


def test_other_bad_input_is_refused():
    labels, predictions, users, lists = binary_log()
    with pytest.raises(ValueError, match="at least one model"):
        evaluate(labels, {}, users, lists)
    with pytest.raises(ValueError, match="model 'short': expected 421"):
        evaluate(labels, {"short": np.zeros(7)}, users, lists)
    with pytest.raises(ValueError, match="users: expected 421 integer codes"):
        evaluate(labels, predictions, users.astype(float), lists)
    with pytest.raises(ValueError, match="lists: expected 421"):
        evaluate(labels, predictions, users, lists[:7])
    with pytest.raises(ValueError, match="list 0 has rows of two users"):
        evaluate(labels, predictions, users, np.zeros(421, dtype=int))
    with pytest.raises(ValueError, match=r"0, 1 or NaN, got [23]\.0 in row 0"):
        evaluate(labels + 2, predictions, users, lists)
    with pytest.raises(ValueError, match="infinite"):
        evaluate(labels + np.inf, predictions, users, lists, kind="regression")
    with pytest.raises(ValueError, match="float array"):
        evaluate(labels.astype(int), predictions, users, lists)
    evaluation = evaluate(labels, predictions, users, lists)
    with pytest.raises(ValueError, match="'best' was not evaluated"):
        evaluation.difference("good", "best")
    with pytest.raises(ValueError, match="'acu' is not one of"):
        evaluation.verdict("good", "noisy", "acu")
    with pytest.raises(ValueError, match="'acu' is unknown"):
        metric_of("acu")


def test_the_callers_arrays_stay_as_they_were():
    labels, predictions, users, lists = binary_log()
    copies = labels.copy(), predictions["good"].copy(), users.copy(), lists.copy()
    evaluate(labels, predictions, users, lists)
    for now, before in zip((labels, predictions["good"], users, lists), copies, strict=True):
        np.testing.assert_array_equal(now, before)
