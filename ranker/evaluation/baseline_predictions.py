"""What simple rankers predict on the same prepared features: smoothed rates and linear models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import expit

from ranker.data.store import EncodedStore
from ranker.evaluation.baselines import (
    combine_rates,
    fit_logistic_regression,
    fit_ridge_regression,
)
from ranker.evaluation.metrics import FloatArray
from ranker.evaluation.rows import EvaluationRows
from ranker.schema import TaskSpec

LINEAR = "linear model"
ITEM_RATE = "item rate"
USER_ITEM_RATE = "user and item rates"


def predict_baselines(
    store: EncodedStore, train: EvaluationRows, test: EvaluationRows, *, seed: int
) -> dict[str, dict[str, FloatArray]]:
    """Task -> baseline -> predictions for the rows of ``test``.

    The linear model (logistic or ridge regression, one a task) is fitted on ``train`` with every
    numeric feature. Smoothed rates exist for the tasks in the schema's ``history.rates``.
    """
    train_features = _numeric_matrix(store, train)
    test_features = _numeric_matrix(store, test)
    predictions: dict[str, dict[str, FloatArray]] = {}
    for task in store.schema.tasks:
        labels = train.labels[task.name]
        by_baseline: dict[str, FloatArray] = {}
        if (~np.isnan(labels)).any():
            fit = fit_logistic_regression if task.kind == "binary" else fit_ridge_regression
            by_baseline[LINEAR] = fit(train_features, labels, seed=seed).predict(test_features)
        by_baseline |= _smoothed_rates(store, task, labels, test)
        predictions[task.name] = by_baseline
    return predictions


def _smoothed_rates(
    store: EncodedStore, task: TaskSpec, train_labels: FloatArray, test: EvaluationRows
) -> Mapping[str, FloatArray]:
    if task.name not in store.schema.rates:
        return {}
    item = _rate(store, f"item_{task.name}_rate", task, test)
    if task.kind == "regression" or np.isnan(train_labels).all():
        return {ITEM_RATE: item}
    overall = np.full(len(item), np.nanmean(train_labels))
    user = _rate(store, f"user_{task.name}_rate", task, test)
    return {ITEM_RATE: item, USER_ITEM_RATE: combine_rates([user, item], overall)}


def _rate(store: EncodedStore, feature: str, task: TaskSpec, rows: EvaluationRows) -> FloatArray:
    """A smoothed mean in the label's unit, back from its standardised link."""
    scale = store.encoders.standardisers[feature]
    standardised = np.asarray(
        store.column(f"feature.{feature}")[rows.start : rows.stop], dtype=np.float64
    )
    linked = standardised * scale.scale + scale.mean
    if task.kind == "binary":
        return np.asarray(expit(linked))
    return np.expm1(linked) if task.loss == "squared_log1p" else linked


def _numeric_matrix(store: EncodedStore, rows: EvaluationRows) -> FloatArray:
    """All numeric features, and an indicator for each nullable one's null: [N, F]."""
    columns: list[FloatArray] = []
    for feature in store.schema.all_features:
        if feature.kind != "numeric":
            continue
        values = np.asarray(
            store.column(f"feature.{feature.name}")[rows.start : rows.stop], dtype=np.float64
        )
        columns.append(values)
        if feature.nullable:
            columns.append(np.isnan(values).astype(np.float64))
    if not columns:
        return np.zeros((rows.stop - rows.start, 1))
    return np.stack(columns, axis=1)


def baseline_names(predictions: Mapping[str, Mapping[str, FloatArray]]) -> Sequence[str]:
    """Every baseline that some task has, in a fixed order."""
    present = {name for by_baseline in predictions.values() for name in by_baseline}
    return [name for name in (LINEAR, USER_ITEM_RATE, ITEM_RATE) if name in present]
