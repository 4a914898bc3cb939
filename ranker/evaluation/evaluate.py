"""Evaluate several models' predictions of one task on the same rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

import numpy as np

from ranker.evaluation.binary import measure_binary
from ranker.evaluation.intervals import (
    MIN_USERS,
    BootstrapSettings,
    Estimate,
    draw_user_weights,
    percentile_estimate,
)
from ranker.evaluation.metrics import (
    METRICS,
    FloatArray,
    IntArray,
    Kind,
    Measure,
    metric_of,
)
from ranker.evaluation.ranking import choose_pairs
from ranker.evaluation.regression import measure_regression
from ranker.evaluation.task_evaluation import Samples, TaskEvaluation

MIN_LABELS = 20  # positives and negatives each, or rows of a regression task
BLOCK_CELLS = 2**19  # rows x replicates worked on at a time: some 4 MiB an array
MAX_BLOCK = 64
MAX_PAIRS = 200_000  # they leave a sampling error of .0011 in XAUC, less in differences
PAIRS_PER_ROW = 50  # enough for small data, whose own spread is larger


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """The rows with a label; users and lists are codes without gaps."""

    labels: FloatArray  # [N]
    predictions_by_model: Mapping[str, FloatArray]
    list_predictions_by_model: Mapping[str, FloatArray]
    users: IntArray  # [N]
    lists: IntArray  # [N]
    user_of_list: IntArray  # [L]
    num_users: int


def evaluate_task(
    *,
    kind: Kind,
    labels: FloatArray,
    predictions_by_model: Mapping[str, FloatArray],
    users: IntArray,
    lists: IntArray,
    rng: np.random.Generator,
    settings: BootstrapSettings,
    list_predictions_by_model: Mapping[str, FloatArray] | None = None,
) -> TaskEvaluation:
    """Compute every metric of the task's kind for each model, with user-clustered intervals.

    The metrics are defined in `binary.measure_binary` and `regression.measure_regression`. ECE of
    a finite sample is biased upward and its replicates doubly so: they are moved down by their
    mean excess over the value.

    Args:
        kind: the task's kind.
        labels: [N]; NaN where not observed, and such a row counts for nothing.
        predictions_by_model: [N] each, probabilities or expected values in the label's unit.
        users: [N] codes of the users, who are resampled.
        lists: [N] codes of the ranked lists; a list belongs to one user.
        rng: draws users, and pairs for XAUC when there are too many.
        settings: replicates, confidence, rank of NDCG.
        list_predictions_by_model: [N] each, by which lists are ordered (see `list_moment`); the
            predictions themselves by default.

    Returns:
        All values ``None`` with a reason when there are fewer than 20 positives or negatives
        (binary) or rows (regression).

    Raises:
        ValueError: arrays of different lengths, no model, a label that is infinite or (binary)
            not 0 or 1, a prediction that is not finite or (binary) outside [0, 1], codes that
            aren't integers, or a list of two users.
    """
    _check_labels(kind, labels)
    _check_codes(labels.size, users, lists)
    if list_predictions_by_model is None:
        list_predictions_by_model = predictions_by_model
    if list_predictions_by_model.keys() != predictions_by_model.keys():
        raise ValueError("evaluate: predictions and those of lists are of different models")
    for by_model in (predictions_by_model, list_predictions_by_model):
        _check_predictions(kind, labels.size, by_model)
    rows = _observed_rows(labels, predictions_by_model, list_predictions_by_model, users, lists)
    positives = int(rows.labels.sum()) if kind == "binary" else None
    too_few = _too_few(rows.labels.size, positives)
    samples: Mapping[str, Mapping[str, Samples]] = {model: {} for model in predictions_by_model}
    if not too_few:
        samples = _sample(_measures(kind, rows, rng, settings), rows, rng, settings)
    names = [name for name, metric in METRICS.items() if kind in metric.kinds]
    names = [f"ndcg@{settings.ndcg_at}" if name == "ndcg" else name for name in names]
    return TaskEvaluation(
        kind=kind,
        rows=rows.labels.size,
        users=rows.num_users,
        positives=positives,
        estimates={
            model: {n: _estimate(by_metric.get(n), n, too_few, settings) for n in names}
            for model, by_metric in samples.items()
        },
        _samples=samples,
        _confidence=settings.confidence,
    )


def _measures(
    kind: Kind, rows: _Rows, rng: np.random.Generator, settings: BootstrapSettings
) -> Mapping[str, Measure]:
    match kind:
        case "binary":
            return {
                model: measure_binary(
                    labels=rows.labels,
                    predictions=predictions,
                    list_predictions=rows.list_predictions_by_model[model],
                    users=rows.users,
                    lists=rows.lists,
                    user_of_list=rows.user_of_list,
                    ndcg_at=settings.ndcg_at,
                )
                for model, predictions in rows.predictions_by_model.items()
            }
        case "regression":
            max_pairs = min(MAX_PAIRS, PAIRS_PER_ROW * rows.labels.size)
            pairs = choose_pairs(rows.labels, max_pairs=max_pairs, rng=rng)
            return {
                model: measure_regression(
                    labels=rows.labels,
                    predictions=predictions,
                    users=rows.users,
                    num_users=rows.num_users,
                    pairs=pairs,
                )
                for model, predictions in rows.predictions_by_model.items()
            }
        case _:
            assert_never(kind)


def _sample(
    measures: Mapping[str, Measure],
    rows: _Rows,
    rng: np.random.Generator,
    settings: BootstrapSettings,
) -> Mapping[str, Mapping[str, Samples]]:
    """Evaluate all models with every user once, then with each draw of users."""
    num_replicates = settings.num_replicates if rows.num_users >= MIN_USERS else 0
    block_size = int(np.clip(BLOCK_CELLS // rows.labels.size, 1, MAX_BLOCK))
    blocks: dict[str, list[Mapping[str, FloatArray]]] = {
        model: [measure(np.ones((1, rows.num_users)))] for model, measure in measures.items()
    }
    for weights in draw_user_weights(
        num_users=rows.num_users, num_replicates=num_replicates, block_size=block_size, rng=rng
    ):
        for model, measure in measures.items():
            blocks[model].append(measure(weights))
    return {
        model: {name: _join(name, [block[name] for block in parts]) for name in parts[0]}
        for model, parts in blocks.items()
    }


def _join(name: str, parts: list[FloatArray]) -> Samples:
    value = parts[0]
    replicates = np.concatenate(parts[1:]) if len(parts) > 1 else np.empty(0)
    if name == "ece" and replicates.size:
        replicates = np.maximum(replicates - (replicates.mean() - value), 0)
    return Samples(value=value, replicates=replicates)


def _estimate(
    samples: Samples | None, name: str, too_few: str, settings: BootstrapSettings
) -> Estimate:
    if samples is None:
        return Estimate(value=None, ci_low=None, ci_high=None, reason=too_few)
    return percentile_estimate(
        value=float(samples.value[0]),
        replicates=samples.replicates,
        confidence=settings.confidence,
        undefined=metric_of(name).undefined,
    )


def _too_few(num_rows: int, positives: int | None) -> str:
    if positives is None:
        return f"fewer than {MIN_LABELS} rows ({num_rows})" if num_rows < MIN_LABELS else ""
    if positives < MIN_LABELS:
        return f"fewer than {MIN_LABELS} positives ({positives})"
    negatives = num_rows - positives
    return f"fewer than {MIN_LABELS} negatives ({negatives})" if negatives < MIN_LABELS else ""


def _observed_rows(
    labels: FloatArray,
    predictions_by_model: Mapping[str, FloatArray],
    list_predictions_by_model: Mapping[str, FloatArray],
    users: IntArray,
    lists: IntArray,
) -> _Rows:
    observed = ~np.isnan(labels)

    def seen(by_model: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        return {
            model: np.asarray(predictions[observed], dtype=np.float64)
            for model, predictions in by_model.items()
        }

    user_ids, user_codes = np.unique(users[observed], return_inverse=True)
    _, first_rows, list_codes = np.unique(lists[observed], return_index=True, return_inverse=True)
    return _Rows(
        labels=np.asarray(labels[observed], dtype=np.float64),
        predictions_by_model=seen(predictions_by_model),
        list_predictions_by_model=seen(list_predictions_by_model),
        users=user_codes,
        lists=list_codes,
        user_of_list=user_codes[first_rows],
        num_users=user_ids.size,
    )


def _check_labels(kind: Kind, labels: FloatArray) -> None:
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.floating):
        raise ValueError(
            f"labels: expected a one-dimensional float array, got {labels.dtype} {labels.shape}; "
            "convert it, with NaN for labels that were not observed"
        )
    if np.isinf(labels).any():
        raise ValueError("labels: infinite values; use NaN for labels that were not observed")
    wrong = ~np.isnan(labels) & (labels != 0) & (labels != 1)
    if kind == "binary" and wrong.any():
        raise ValueError(
            f"labels: a binary task needs 0, 1 or NaN, got {labels[wrong][0]} in row "
            f"{int(np.argmax(wrong))}"
        )


def _check_codes(num_rows: int, users: IntArray, lists: IntArray) -> None:
    for name, codes in (("users", users), ("lists", lists)):
        if codes.shape != (num_rows,) or not np.issubdtype(codes.dtype, np.integer):
            raise ValueError(
                f"{name}: expected {num_rows} integer codes, one for each label, got "
                f"{codes.dtype} {codes.shape}"
            )
    order = np.lexsort((users, lists))
    shared = (np.diff(lists[order]) == 0) & (np.diff(users[order]) != 0)
    if shared.any():
        code = lists[order][int(np.argmax(shared))]
        raise ValueError(f"lists: list {code} has rows of two users; a list belongs to one user")


def _check_predictions(
    kind: Kind, num_rows: int, predictions_by_model: Mapping[str, FloatArray]
) -> None:
    if not predictions_by_model:
        raise ValueError("predictions_by_model: expected at least one model, got none")
    for model, predictions in predictions_by_model.items():
        if predictions.shape != (num_rows,):
            raise ValueError(
                f"predictions of model {model!r}: expected {num_rows}, one for each label, got "
                f"shape {predictions.shape}"
            )
        wrong = ~np.isfinite(predictions)
        expected = "finite numbers"
        if kind == "binary":
            wrong |= (predictions < 0) | (predictions > 1)
            expected = "probabilities in [0, 1]"
        if wrong.any():
            raise ValueError(
                f"predictions of model {model!r}: expected {expected}, got "
                f"{predictions[wrong][0]} in row {int(np.argmax(wrong))}; {int(wrong.sum())} such "
                "rows in all"
            )
