"""How good the response model is on impressions of users it did not learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import r2_score, roc_auc_score

from ranker.experiment.lift import JsonScalar
from ranker.experiment.response import LoggedImpressions, ResponseModel, observed_rows
from ranker.schema import TaskSpec

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseQuality:
    """Cross-fitted quality of one task on the logged impressions.

    Attributes:
        label_mean, prediction_mean: None without observed labels; near each other when calibrated.
        auc: of binary tasks; None with a base rate only.
        r2: of regression tasks; None with a base rate only.
        relative_variance: of regression tasks: the v of the draws' law, var = v·(mean − minimum)²,
            by moments: sum of squared residuals over sum of squared (prediction − minimum).
        note: why there is no model, where there is none.
    """

    task: str
    num_rows: int
    label_mean: float | None = None
    prediction_mean: float | None = None
    auc: float | None = None
    r2: float | None = None
    relative_variance: float | None = None
    note: str = ""

    def to_json(self) -> dict[str, JsonScalar]:
        """Every field, ready for ``json.dumps``."""
        return asdict(self)


def assess_response_model(
    model: ResponseModel, log: LoggedImpressions, *, tasks: Sequence[TaskSpec]
) -> tuple[ResponseQuality, ...]:
    """Judge ``model`` on the log it was fitted on; each row by a model without its user."""
    predictions = model.predict(features=log.features, users=log.users)
    reports = []
    for task in tasks:
        rows = observed_rows(log, task=task) & np.isfinite(predictions[task.name])
        reports.append(
            _assess_task(
                log.labels[task.name][rows],
                predictions[task.name][rows],
                task=task,
                note=model.notes.get(task.name, ""),
            )
        )
    return tuple(reports)


def _assess_task(
    labels: FloatArray, predictions: FloatArray, *, task: TaskSpec, note: str
) -> ResponseQuality:
    if len(labels) == 0:
        return ResponseQuality(task=task.name, num_rows=0, note=note)
    is_binary = task.kind == "binary"
    relative_variance = None
    if not is_binary:
        squared_means = float(np.sum((predictions - task.minimum) ** 2))
        squared_errors = float(np.sum((labels - predictions) ** 2))
        relative_variance = squared_errors / squared_means if squared_means > 0 else 0.0
    return ResponseQuality(
        task=task.name,
        num_rows=len(labels),
        label_mean=float(labels.mean()),
        prediction_mean=float(predictions.mean()),
        auc=float(roc_auc_score(labels, predictions)) if is_binary and not note else None,
        r2=None if is_binary or note else float(r2_score(labels, predictions)),
        relative_variance=relative_variance,
        note=note,
    )
