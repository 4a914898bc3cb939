"""What simple rankers predict on the same prepared features: smoothed rates and linear models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from ranker.data.feature_side import names_on
from ranker.data.store import EncodedStore
from ranker.evaluation.baselines import (
    LinearBaseline,
    combine_rates,
    fit_logistic_regression,
    fit_ridge_regression,
)
from ranker.evaluation.metrics import FloatArray, IntArray
from ranker.evaluation.rows import EvaluationRows
from ranker.schema import TaskSpec

LINEAR = "linear model"
ITEM_RATE = "item rate"
USER_ITEM_RATE = "user and item rates"


@dataclass(frozen=True, slots=True, kw_only=True)
class Baselines:
    """Fitted baselines.

    Attributes:
        linear: task -> logistic or ridge regression on every numeric feature; none for a task
            without a label.
        mean_label: task -> its mean; NaN without a label.
    """

    linear: Mapping[str, LinearBaseline]
    mean_label: Mapping[str, float]

    def predict(
        self, store: EncodedStore, rows: EvaluationRows, *, requests: IntArray | None = None
    ) -> dict[str, dict[str, FloatArray]]:
        """Task -> baseline -> predictions [N] for ``rows``.

        With ``requests`` [N] the request's features are those of these rows of the store
        (`list_moment.request_rows`). Smoothed rates exist for the tasks in the schema's
        ``history.rates``.
        """
        read = _Reader(store, rows, requests)
        features = read.numeric_matrix()
        predictions: dict[str, dict[str, FloatArray]] = {}
        for task in store.schema.tasks:
            by_baseline: dict[str, FloatArray] = {}
            if task.name in self.linear:
                by_baseline[LINEAR] = self.linear[task.name].predict(features)
            by_baseline |= _smoothed_rates(read, task, self.mean_label[task.name])
            predictions[task.name] = by_baseline
        return predictions


def fit_baselines(store: EncodedStore, train: EvaluationRows, *, seed: int) -> Baselines:
    """Fit a linear model for each task on the rows of ``train``."""
    features = _Reader(store, train, None).numeric_matrix()
    linear, mean_label = {}, {}
    for task in store.schema.tasks:
        labels = train.labels[task.name]
        mean_label[task.name] = math.nan
        if (~np.isnan(labels)).any():
            fit = fit_logistic_regression if task.kind == "binary" else fit_ridge_regression
            linear[task.name] = fit(features, labels, seed=seed)
            mean_label[task.name] = float(np.nanmean(labels))
    return Baselines(linear=linear, mean_label=mean_label)


def _smoothed_rates(read: _Reader, task: TaskSpec, mean_label: float) -> Mapping[str, FloatArray]:
    if task.name not in read.store.schema.rates:
        return {}
    item = _rate(read, f"item_{task.name}_rate", task)
    if task.kind == "regression" or math.isnan(mean_label):
        return {ITEM_RATE: item}
    user = _rate(read, f"user_{task.name}_rate", task)
    overall = np.full(len(item), mean_label)
    return {ITEM_RATE: item, USER_ITEM_RATE: combine_rates([user, item], overall)}


def _rate(read: _Reader, feature: str, task: TaskSpec) -> FloatArray:
    """A smoothed mean in the label's unit, back from its standardised link."""
    scale = read.store.encoders.standardisers[feature]
    linked = read.feature(feature) * scale.scale + scale.mean
    if task.kind == "binary":
        return np.asarray(expit(linked))
    return np.expm1(linked) if task.loss == "squared_log1p" else linked


class _Reader:
    """Numeric features of ``rows``, the request's from ``requests`` where they are given."""

    def __init__(
        self, store: EncodedStore, rows: EvaluationRows, requests: IntArray | None
    ) -> None:
        self.store, self._rows, self._requests = store, rows, requests
        self._of_request = set(names_on("request", store.schema))

    def feature(self, name: str) -> FloatArray:
        """Standardised values [N]."""
        column = self.store.column(f"feature.{name}")
        if self._requests is not None and name in self._of_request:
            return np.asarray(column[self._requests], dtype=np.float64)
        return np.asarray(column[self._rows.start : self._rows.stop], dtype=np.float64)

    def numeric_matrix(self) -> FloatArray:
        """All numeric features, and an indicator for each nullable one's null: [N, F]."""
        columns: list[FloatArray] = []
        for feature in self.store.schema.all_features:
            if feature.kind != "numeric":
                continue
            values = self.feature(feature.name)
            columns.append(values)
            if feature.nullable:
                columns.append(np.isnan(values).astype(np.float64))
        if not columns:
            return np.zeros((self._rows.stop - self._rows.start, 1))
        return np.stack(columns, axis=1)


def baseline_names(predictions: Mapping[str, Mapping[str, FloatArray]]) -> Sequence[str]:
    """Every baseline that some task has, in a fixed order."""
    present = {name for by_baseline in predictions.values() for name in by_baseline}
    return [name for name in (LINEAR, USER_ITEM_RATE, ITEM_RATE) if name in present]
