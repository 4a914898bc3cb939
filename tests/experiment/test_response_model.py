import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from ranker.experiment.response import (
    LoggedImpressions,
    ResponseSettings,
    fit_response_model,
    user_folds,
)
from ranker.experiment.response_quality import assess_response_model
from ranker.schema import TaskSpec

CLICK = TaskSpec(name="click", label="c", family="engagement", kind="binary")
WATCH = TaskSpec(name="watch_s", label="w", family="engagement", kind="regression", minimum=2.0)
RATING = TaskSpec(
    name="rating", label="r", family="satisfaction", kind="regression", conditional_on="click"
)
SETTINGS = ResponseSettings(max_iter=12, learning_rate=0.3, max_leaf_nodes=7)


def make_log(*, num_users=50, rows_each=20, seed=1, **labels):
    """Feature 0 names the user; feature 1 drives click and watch time; feature 2 is mostly NaN."""
    rng = np.random.default_rng(seed)
    users = np.repeat(np.arange(num_users), rows_each)
    features = rng.normal(size=(len(users), 3)).astype(np.float32)
    features[:, 0] = users
    features[rng.random(len(users)) < 0.8, 2] = np.nan
    click = (rng.random(len(users)) < 1 / (1 + np.exp(-2 * features[:, 1]))).astype(float)
    watch = 2 + np.exp(features[:, 1]) * rng.gamma(2, 0.5, len(users))
    return LoggedImpressions(
        features=features,
        feature_names=("user", "taste", "rare"),
        labels={"click": click, "watch_s": watch, **labels},
        users=users,
        times_ms=np.arange(len(users)),
    )


def fit(log, tasks, settings=SETTINGS):
    return fit_response_model(log, tasks=tasks, settings=settings, rng=np.random.default_rng(0))


def test_memorised_users_gain_nothing():
    user_labels = np.random.default_rng(4).integers(0, 2, 50).astype(float)
    log = make_log(click=np.repeat(user_labels, 20))
    with threadpool_limits(limits=1):
        in_sample = HistGradientBoostingClassifier(max_iter=15, learning_rate=0.5)
        in_sample.fit(log.features, log.labels["click"])
        memorised = in_sample.predict_proba(log.features)[:, 1]
    assert roc_auc_score(log.labels["click"], memorised) > 0.95
    (quality,) = assess_response_model(fit(log, (CLICK,)), log, tasks=(CLICK,))
    assert quality.auc < 0.75


@pytest.mark.parametrize("num_folds", [2, 3])
def test_own_folds_labels_change_nothing(num_folds):
    settings = ResponseSettings(max_iter=7, num_folds=num_folds)
    log = make_log()
    in_fold = user_folds(log.users, settings=settings) == 1
    assert 0 < in_fold.sum() < len(in_fold)
    click = np.where(in_fold, 1 - log.labels["click"], log.labels["click"])
    before, after = (
        fit(one, (CLICK,), settings).predict(features=log.features, users=log.users)["click"]
        for one in (log, make_log(click=click))
    )
    np.testing.assert_array_equal(before[in_fold], after[in_fold])
    assert (before[~in_fold] != after[~in_fold]).any()


def test_unseen_users_follow_the_fold_of_their_hash():
    log = make_log()
    model = fit(log, (CLICK,))
    strangers = np.array([900, 901, 902, 903, 904, 905, 906])
    folds = user_folds(strangers, settings=SETTINGS)
    assert set(folds.tolist()) == {0, 1}
    features = np.tile(log.features[:1], (7, 1))
    predictions = model.predict(features=features, users=strangers)["click"]
    for fold, models in enumerate(model.fold_models["click"]):
        np.testing.assert_allclose(predictions[folds == fold], models.predict(features[:1])[0])


def test_learns_what_there_is_and_reports_it():
    log = make_log()
    click, watch = assess_response_model(fit(log, (CLICK, WATCH)), log, tasks=(CLICK, WATCH))
    # The labels' own AUC, from the true probability (a monotone function of feature 1).
    best = roc_auc_score(log.labels["click"], log.features[:, 1])
    assert best - 0.05 < click.auc <= best
    assert click.num_rows == 1_000
    assert click.label_mean == pytest.approx(log.labels["click"].mean())
    assert click.prediction_mean == pytest.approx(click.label_mean, abs=0.03)
    # Given the features, excess watch time is Gamma with shape 2: variance = mean² / 2.
    assert watch.relative_variance == pytest.approx(0.5, rel=0.25)
    assert watch.r2 > 0.3
    assert click.note == watch.note == ""


def test_regression_stays_above_its_minimum():
    log = make_log()
    model = fit(log, (WATCH,), ResponseSettings(max_iter=30, learning_rate=1.0))
    predictions = model.predict(features=log.features, users=log.users)["watch_s"]
    assert predictions.min() >= 2.0


def test_conditional_tasks_learn_only_where_the_condition_happened():
    # Ratings are 4 after a click; the 9s elsewhere must not be learned from.
    clicks = make_log().labels["click"]
    noise = np.random.default_rng(2).normal(0, 0.1, len(clicks))
    log = make_log(rating=np.where(clicks == 1, 4.0 + noise, 9.0))
    model = fit(log, (RATING,))
    predictions = model.predict(features=log.features, users=log.users)["rating"]
    assert predictions.max() < 5


@pytest.mark.parametrize(
    ("labels", "expected", "note"),
    [
        ([1.0] * 19 + [0.0] * 981, 0.019, "19 positives or negatives"),
        ([1.0] * 1_000, 1.0, "0 positives or negatives"),
        ([np.nan] * 1_000, np.nan, "0 positives or negatives"),
    ],
)
def test_too_few_events_give_the_base_rate_of_other_users(labels, expected, note):
    values = np.random.default_rng(8).permutation(labels)
    log = make_log(click=values)
    model = fit(log, (CLICK,))
    assert note in model.notes["click"]
    predictions = model.predict(features=log.features, users=log.users)["click"]
    folds = user_folds(log.users, settings=SETTINGS)
    for fold in (0, 1):
        np.testing.assert_allclose(predictions[folds == fold], values[folds != fold].mean())
    np.testing.assert_allclose(predictions.mean(), expected, atol=0.02)
    (quality,) = assess_response_model(model, log, tasks=(CLICK,))
    assert quality.auc is None


def test_one_user_has_nothing_to_learn_from():
    log = make_log(num_users=1, rows_each=70)
    model = fit(log, (CLICK, WATCH))
    assert set(model.notes) == {"click", "watch_s"}
    predictions = model.predict(features=log.features, users=log.users)
    assert np.isnan(predictions["click"]).all()
    assert np.isnan(predictions["watch_s"]).all()


def test_thinning_keeps_whole_users_up_to_the_limit():
    # Labels are powers of two by user, so a fold's base rate tells which users it learned from.
    users = np.repeat(np.arange(7), [3, 1, 4, 2, 5, 3, 1])
    log = LoggedImpressions(
        features=np.zeros((19, 1), dtype=np.float32),
        feature_names=("x",),
        labels={"watch_s": 2.0**users},
        users=users,
        times_ms=np.arange(19),
    )
    folds = user_folds(np.arange(7), settings=SETTINGS)
    seen = set()
    for seed in range(20):
        model = fit_response_model(
            log,
            tasks=(WATCH,),
            settings=ResponseSettings(max_training_rows=9),
            rng=np.random.default_rng(seed),
        )
        means = [
            fold_model.predict(log.features[:1])[0] for fold_model in model.fold_models["watch_s"]
        ]
        seen.add(tuple(means))
        assert any(
            all(
                np.isclose(mean, _mean_over(kept & (folds != fold), users), equal_nan=True)
                for fold, mean in enumerate(means)
            )
            for kept in _subsets_of_users(7)
            if np.isin(users, np.flatnonzero(kept)).sum() <= 9
        )
    assert len(seen) > 3


def _subsets_of_users(num_users):
    for bits in range(1, 2**num_users):
        yield (bits >> np.arange(num_users)) & 1 == 1


def _mean_over(chosen, users):
    rows = users[np.isin(users, np.flatnonzero(chosen))]
    return (2.0**rows).mean() if len(rows) else np.nan


def test_missing_labels_are_named():
    log = make_log()
    with pytest.raises(ValueError, match="no labels for task 'rating'"):
        fit(log, (RATING,))
    with pytest.raises(ValueError, match="'click' is binary; its labels must be 0, 1 or NaN"):
        fit(make_log(click=log.labels["watch_s"]), (CLICK,))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"times_ms": np.arange(3)}, "3 times for 70 rows"),
        ({"labels": {"click": np.zeros(69)}}, r"'click' has shape \(69,\) for 70 rows"),
        ({"labels": {"click": np.full(70, np.inf)}}, "'click' has infinite values"),
        ({"feature_names": ("user", "taste")}, r"expected features of shape \(70, 2\)"),
        ({"users": np.arange(70) / 2}, "log: users: expected integers or strings"),
    ],
)
def test_bad_logs_are_named(changes, message):
    log = make_log(num_users=7, rows_each=10)
    values = {
        "features": log.features,
        "feature_names": log.feature_names,
        "labels": log.labels,
        "users": log.users,
        "times_ms": log.times_ms,
    }
    with pytest.raises(ValueError, match=message):
        LoggedImpressions(**{**values, **changes})


@pytest.mark.parametrize("options", [{"num_folds": 1}, {"max_iter": 0}, {"max_training_rows": 0}])
def test_bad_settings_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        ResponseSettings(**options)
