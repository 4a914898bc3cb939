"""Response model: what an impression would bring, from another family than the rankers'.

Gradient boosting on logged impressions, cross-fitted by user: users are hashed into folds, and a
user's predictions come only from models that saw none of his fold. So a ranker that memorised
users gains nothing from a simulator that did the same.

Shapes: ``N`` rows, ``F`` features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from ranker.experiment.assignment import IdArray, as_ids, hash_to_unit
from ranker.experiment.policy import check_features, codes_of
from ranker.schema import TaskSpec

FloatArray = NDArray[np.float64]
MIN_EVENTS = 20  # fewer positives or negatives (rows, for a regression) teach a model nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseSettings:
    """How the response model is fitted; light, since it is refitted many times.

    Attributes:
        max_bins: values a feature is cut into; 63 takes half the time of scikit-learn's 255.
        max_training_rows: of a task; more are thinned by dropping whole users at random.
        fold_salt: of the hash that puts users into folds.
    """

    num_folds: int = 2
    max_iter: int = 40
    learning_rate: float = 0.1
    max_leaf_nodes: int = 15
    max_bins: int = 63
    max_training_rows: int = 20_000
    fold_salt: str = "response-folds"

    def __post_init__(self) -> None:
        if self.num_folds < 2:
            raise ValueError(
                f"num_folds must be at least 2, got {self.num_folds}: no cross-fitting"
            )
        if self.max_iter < 1 or self.max_leaf_nodes < 2 or self.max_training_rows < 1:
            raise ValueError("max_iter, max_leaf_nodes, max_training_rows must be >= 1, 2, 1")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoggedImpressions:
    """What the response model learns from.

    Attributes:
        features: NaN where missing, [N, F].
        feature_names: names of the F columns.
        labels: task → label in the task's unit, NaN where not observed, [N].
        users: [N].
        times_ms: UTC, [N].
    """

    features: NDArray[np.float32]
    feature_names: tuple[str, ...]
    labels: Mapping[str, FloatArray]
    users: IdArray
    times_ms: NDArray[np.int64]

    def __post_init__(self) -> None:
        num_rows = len(self.users)
        as_ids(self.users[:1], name="log: users")
        check_features(self.features, names=self.feature_names, num_rows=num_rows, of="log")
        if len(self.times_ms) != num_rows:
            raise ValueError(f"log: {len(self.times_ms)} times for {num_rows} rows")
        for name, values in self.labels.items():
            if values.shape != (num_rows,):
                raise ValueError(
                    f"log: label {name!r} has shape {values.shape} for {num_rows} rows"
                )
            if np.isinf(values).any():
                raise ValueError(f"log: label {name!r} has infinite values")

    def take(self, rows: NDArray[np.int64]) -> LoggedImpressions:
        """The given rows, repeated where an index is."""
        return LoggedImpressions(
            features=self.features[rows],
            feature_names=self.feature_names,
            labels={name: values[rows] for name, values in self.labels.items()},
            users=self.users[rows],
            times_ms=self.times_ms[rows],
        )


class FoldModel(Protocol):
    """Predicts mean labels [N] from features [N, F]."""

    def predict(self, features: NDArray[np.float32]) -> FloatArray:
        """Mean labels, [N]."""
        ...


@dataclass(frozen=True, slots=True)
class BaseRate:
    """Predicts the same for everything."""

    mean: float

    def predict(self, features: NDArray[np.float32]) -> FloatArray:
        """The mean label, [N]."""
        return np.full(len(features), self.mean)


@dataclass(frozen=True, slots=True, eq=False)
class BoostedClassifier:
    """Predicts the probability of label 1."""

    estimator: HistGradientBoostingClassifier

    def predict(self, features: NDArray[np.float32]) -> FloatArray:
        """Probabilities, [N]."""
        probabilities: FloatArray = self.estimator.predict_proba(features)[:, 1]
        return probabilities


@dataclass(frozen=True, slots=True, eq=False)
class BoostedRegressor:
    """Predicts the mean label, never below ``minimum``."""

    estimator: HistGradientBoostingRegressor
    minimum: float

    def predict(self, features: NDArray[np.float32]) -> FloatArray:
        """Mean labels, [N]."""
        means: FloatArray = np.maximum(self.estimator.predict(features), self.minimum)
        return means


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ResponseModel:
    """A fitted response model.

    Attributes:
        fold_models: task → one model a fold, for the users *in* that fold.
        notes: task → why it has only a base rate; tasks with a real model are absent.
    """

    fold_models: Mapping[str, tuple[FoldModel, ...]]
    notes: Mapping[str, str]
    settings: ResponseSettings

    def predict(self, *, features: NDArray[np.float32], users: IdArray) -> dict[str, FloatArray]:
        """Mean label by task, [N], NaN for a task never observed.

        Args:
            features: columns as in training, [N, F].
            users: decide which fold's model predicts, logged before or not, [N].
        """
        folds = user_folds(users, settings=self.settings)
        predictions = {task: np.empty(len(features)) for task in self.fold_models}
        with threadpool_limits(limits=1, user_api="openmp"):
            for fold in np.unique(folds).tolist():
                rows = np.flatnonzero(folds == fold)
                fold_features = features[rows]
                for task, models in self.fold_models.items():
                    predictions[task][rows] = models[fold].predict(fold_features)
        return predictions


def fit_response_model(
    log: LoggedImpressions,
    *,
    tasks: Sequence[TaskSpec],
    settings: ResponseSettings,
    rng: np.random.Generator,
) -> ResponseModel:
    """Fit one model a task and fold, each on the users of the other folds.

    A task with fewer than 20 positives or negatives (or regression labels), or whose labels are
    all alike in what a fold learns from, gets base rates and a note.

    Args:
        log: impressions before the test window.
        tasks: with labels in ``log``; a conditional task learns only where its condition happened.
        settings: of the boosting and the folds.
        rng: thins the log to ``max_training_rows``.

    Raises:
        ValueError: a task (or its condition) without labels, or binary labels other than 0 and 1.
    """
    folds = user_folds(log.users, settings=settings)
    user_codes = codes_of(log.users, name="log: users")
    fold_models: dict[str, tuple[FoldModel, ...]] = {}
    notes: dict[str, str] = {}
    for task in tasks:
        rows = np.flatnonzero(observed_rows(log, task=task))
        rows = _thin(rows, user_codes, max_rows=settings.max_training_rows, rng=rng)
        labels = log.labels[task.name][rows]
        # For users in a fold learn from those outside it.
        parts = [folds[rows] != fold for fold in range(settings.num_folds)]
        note = _why_base_rate(labels, parts=parts, task=task)
        if note:
            notes[task.name] = note
            fold_models[task.name] = tuple(_base_rate(labels[part]) for part in parts)
        else:
            fold_models[task.name] = tuple(
                _boost(log.features[rows[part]], labels[part], task=task, settings=settings)
                for part in parts
            )
    return ResponseModel(fold_models=fold_models, notes=notes, settings=settings)


def user_folds(users: IdArray, *, settings: ResponseSettings) -> NDArray[np.int64]:
    """The fold of each of ``users`` [N], by salted hash: 0 to ``num_folds`` − 1."""
    units = hash_to_unit(users, salt=settings.fold_salt)
    return np.floor(units * settings.num_folds).astype(np.int64)


def observed_rows(log: LoggedImpressions, *, task: TaskSpec) -> NDArray[np.bool_]:
    """Rows whose label is known and, for a conditional task, whose condition happened, [N].

    Raises:
        ValueError: labels missing from the log, or binary labels other than 0 and 1.
    """
    for name in (task.name, task.conditional_on):
        if name is not None and name not in log.labels:
            raise ValueError(
                f"log: no labels for task {name!r}; it has {sorted(log.labels)}: "
                "add them or leave the task (and those conditional on it) out"
            )
    labels = log.labels[task.name]
    observed = ~np.isnan(labels)
    if task.kind == "binary" and not np.isin(labels[observed], (0, 1)).all():
        raise ValueError(f"log: task {task.name!r} is binary; its labels must be 0, 1 or NaN")
    if task.conditional_on is not None:
        observed &= log.labels[task.conditional_on] == 1
    return observed


def _boost(
    features: NDArray[np.float32], labels: FloatArray, *, task: TaskSpec, settings: ResponseSettings
) -> FoldModel:
    # early_stopping off: its random hold-out would split users, and light models don't need it.
    # random_state only matters for more rows than the binner's own sample (200,000).
    kind = (
        HistGradientBoostingClassifier if task.kind == "binary" else HistGradientBoostingRegressor
    )
    estimator = kind(
        max_iter=settings.max_iter,
        learning_rate=settings.learning_rate,
        max_leaf_nodes=settings.max_leaf_nodes,
        max_bins=settings.max_bins,
        early_stopping=False,
        random_state=0,
    )
    # One thread: such small fits gain little from more, lose tenfold where the cores are busy
    # (OpenMP threads wait by spinning), and then come out the same on every machine.
    with threadpool_limits(limits=1, user_api="openmp"):
        estimator.fit(features, labels)
    if task.kind == "binary":
        return BoostedClassifier(estimator)
    return BoostedRegressor(estimator, task.minimum)


def _base_rate(labels: FloatArray) -> FoldModel:
    return BaseRate(float(labels.mean()) if len(labels) else float("nan"))


def _why_base_rate(
    labels: FloatArray, *, parts: Sequence[NDArray[np.bool_]], task: TaskSpec
) -> str:
    if task.kind == "binary":
        num_events = int(min(np.count_nonzero(labels == 1), np.count_nonzero(labels == 0)))
        what = "positives or negatives"
    else:
        num_events, what = len(labels), "observed labels"
    if num_events < MIN_EVENTS:
        return f"base rate only: {num_events} {what}, a model needs {MIN_EVENTS}"
    for fold, part in enumerate(parts):
        if len(np.unique(labels[part])) < 2:
            return f"base rate only: all labels outside the users of fold {fold} are alike"
    return ""


def _thin(
    rows: NDArray[np.int64],
    user_codes: NDArray[np.int64],
    *,
    max_rows: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    if len(rows) <= max_rows:
        return rows
    counts = np.bincount(user_codes[rows])
    users = rng.permutation(np.flatnonzero(counts))
    num_users = int(np.searchsorted(np.cumsum(counts[users]), max_rows, side="right"))
    kept = np.isin(user_codes[rows], users[: max(num_users, 1)])
    return rows[kept]
