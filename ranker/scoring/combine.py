"""Many predictions a candidate become one score.

`N` candidates. The tasks' predictions come in the labels' units, by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import assert_never

import numpy as np
import numpy.typing as npt

from ranker.config import parse_config
from ranker.schema import TaskSpec
from ranker.score_weights import ScoreWeights, check_score_weights
from ranker.scoring.normalised_rank import normalised_ranks

FloatArray = npt.NDArray[np.floating]
IntArray = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]

PROBABILITY_FLOOR = 1e-6  # ε: a predicted 0 must not decide a product alone
MAX_SCORE = 1e290  # of a sum: the scores of all candidates are added up, too
MAX_LOG_SCORE = 700.0  # exp of more overflows float64, of less than its negative underflows


def combine(
    predictions: Mapping[str, FloatArray],
    *,
    score_weights: ScoreWeights,
    tasks: Sequence[TaskSpec],
    requests: IntArray | None = None,
) -> Float64Array:
    """Score candidates from their predictions, conditional ones still conditional: [N].

    Args:
        predictions: by task, [N] each, calibrated if the bundle's are.
        score_weights: how they are combined.
        tasks: the schema's.
        requests: codes [N] of the candidates' requests, which the rank-normalised sum ranks within;
            the other combinations look at each candidate alone.

    Raises:
        ValueError: no ``requests`` for a rank-normalised sum; see also `check_score_weights`,
            `unconditional`, `weighted_product`, `weighted_sum`, `rank_normalised_sum`.
    """
    check_score_weights(score_weights, tasks=tasks)
    multiplied = unconditional(predictions, tasks)
    match score_weights.combination:
        case "weighted_product":
            return weighted_product(multiplied, score_weights.weights, tasks)
        case "weighted_sum":
            return weighted_sum(multiplied, score_weights.weights, tasks)
        case "rank_normalised_sum":
            if requests is None:
                raise ValueError(
                    "rank_normalised_sum: needs the code of each candidate's request, got none"
                )
            return rank_normalised_sum(multiplied, score_weights.weights, tasks, requests=requests)
        case _:
            assert_never(score_weights.combination)


def unconditional(
    predictions: Mapping[str, FloatArray], tasks: Sequence[TaskSpec]
) -> dict[str, Float64Array]:
    """Multiply each conditional task's prediction by its condition's; others stay as they are.

    P(rated and liked) = P(liked | rated) P(rated). To be applied once: the result no longer says
    what it has been multiplied by.

    Raises:
        ValueError: a prediction of no known task, or without that of the task it depends on.
    """
    task_by_name = {task.name: task for task in tasks}
    multiplied: dict[str, Float64Array] = {}
    for name, values in predictions.items():
        if name not in task_by_name:
            raise ValueError(
                f"predictions: unknown task {name!r}; expected one of {list(task_by_name)}"
            )
        condition = task_by_name[name].conditional_on
        multiplied[name] = values.astype(np.float64)
        if condition is not None:
            if condition not in predictions:
                raise ValueError(
                    f"predictions: task {name!r} is conditional on {condition!r}, whose "
                    f"predictions are missing (got {list(predictions)})"
                )
            multiplied[name] = multiplied[name] * predictions[condition]
    return multiplied


TIED_DECIMALS = 12


def weighted_product(
    predictions: Mapping[str, FloatArray],
    weights: Mapping[str, float],
    schema_tasks: Sequence[TaskSpec],
) -> Float64Array:
    """exp(sum_k w_k log g_k): [N], > 0.

    g = p + ε for binary tasks and 1 - p + ε for negative ones; 1 + value for regression tasks and
    1 / (1 + value) for negative ones, values below 0 counting as 0. Multiplying all weights by one
    factor keeps the order.

    Args:
        predictions: by task, each [N], unconditional.
        weights: by task, >= 0; tasks left out weigh 0.
        schema_tasks: their kinds and directions.

    Raises:
        ValueError: weights that are negative, not finite, all 0 or of unknown tasks; predictions
            that are missing, not finite, of unequal length, or no probabilities in a binary task;
            weights so large that the product leaves the range of float64.
    """
    weighed = _weighed_tasks(predictions, weights, schema_tasks)
    log_score = sum(
        (weights[task.name] * _log_gain(predictions[task.name], task) for task in weighed),
        start=np.zeros(1),
    )
    extreme = np.abs(log_score).max(initial=0.0)
    if extreme > MAX_LOG_SCORE:
        raise ValueError(
            f"score weights: the weighted product leaves the range of float64 (log score "
            f"{extreme:.0f}, at most {MAX_LOG_SCORE:.0f}); divide all weights by one number: the "
            "order of the candidates stays"
        )
    return np.exp(log_score)


def weighted_sum(
    predictions: Mapping[str, FloatArray],
    weights: Mapping[str, float],
    schema_tasks: Sequence[TaskSpec],
) -> Float64Array:
    """sum_k ± w_k prediction_k, minus for tasks of negative direction: [N].

    Arguments and errors as in `weighted_product`, but any finite value of a regression task counts
    as it is.
    """
    weighed = _weighed_tasks(predictions, weights, schema_tasks)
    return _bounded_sum(_signed_weight(task, weights) * predictions[task.name] for task in weighed)


def rank_normalised_sum(
    predictions: Mapping[str, FloatArray],
    weights: Mapping[str, float],
    schema_tasks: Sequence[TaskSpec],
    *,
    requests: IntArray,
) -> Float64Array:
    """sum_k ± w_k r_k, minus for tasks of negative direction: [N].

    r is the prediction's mean normalised rank within its request, in [0, 1] (`normalised_ranks`).
    So a weight means the same whatever the task's unit, base rate or spread, calibrated or not;
    but how far apart two predictions are counts for nothing.

    Arguments and errors as in `weighted_sum`, and ``requests``, codes [N].
    """
    weighed = _weighed_tasks(predictions, weights, schema_tasks)
    num_rows = len(predictions[weighed[0].name])
    if requests.shape != (num_rows,):
        raise ValueError(
            f"requests: expected {num_rows} codes, one a candidate, got shape {requests.shape}"
        )
    scores = _bounded_sum(
        _signed_weight(task, weights) * normalised_ranks(predictions[task.name], requests)
        for task in weighed
    )
    # Ranks tie often: the item id is to decide between equal sums, not their last digits.
    total = sum(weights[task.name] for task in weighed)
    return np.round(scores / total, TIED_DECIMALS) * total


def _bounded_sum(terms: Iterable[Float64Array]) -> Float64Array:
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused here
        scores = sum(terms, start=np.zeros(1))
    extreme = np.abs(scores).max(initial=0.0)
    if not extreme <= MAX_SCORE:
        raise ValueError(
            f"score weights: the sum reaches {extreme:.3g}, beyond {MAX_SCORE:g}; divide all "
            "weights by one number: the order of the candidates stays"
        )
    return scores


def _signed_weight(task: TaskSpec, weights: Mapping[str, float]) -> np.float64:
    # float64 also where predictions are float32
    return np.float64(weights[task.name] if task.direction == "positive" else -weights[task.name])


def _log_gain(prediction: FloatArray, task: TaskSpec) -> Float64Array:
    values = prediction.astype(np.float64)
    if task.kind == "binary":
        p = values if task.direction == "positive" else 1.0 - values
        return np.log(p + PROBABILITY_FLOOR)
    log_gain = np.log1p(np.maximum(values, 0.0))
    return log_gain if task.direction == "positive" else -log_gain


def _weighed_tasks(
    predictions: Mapping[str, FloatArray],
    weights: Mapping[str, float],
    schema_tasks: Sequence[TaskSpec],
) -> list[TaskSpec]:
    """The tasks of positive weight, in the schema's order, after all checks."""
    checked = parse_config(ScoreWeights, {"weights": dict(weights)}, source="score weights")
    check_score_weights(checked, tasks=schema_tasks)
    weighed = [task for task in schema_tasks if weights.get(task.name, 0) > 0]
    for task in weighed:
        if task.name not in predictions:
            raise ValueError(
                f"predictions: task {task.name!r} has a score weight but no predictions "
                f"(got {list(predictions)})"
            )
        _check_values(predictions[task.name], task)
    lengths = {task.name: len(predictions[task.name]) for task in weighed}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"predictions: tasks must have equal lengths, got {lengths}")
    return weighed


def _check_values(values: FloatArray, task: TaskSpec) -> None:
    bad = ~np.isfinite(values)
    expected = "finite"
    if task.kind == "binary":
        bad |= (values < 0) | (values > 1)
        expected = "a probability in [0, 1]"
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(
            f"predictions: task {task.name!r} must be {expected}, got {values[row]} in row {row} "
            f"(such rows: {int(bad.sum()):,})"
        )
