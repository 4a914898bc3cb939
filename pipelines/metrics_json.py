"""What metrics.json holds of an evaluation, section by section."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ranker.bundle import ModelBundle
    from ranker.data.store import EncodedStore
    from ranker.evaluation.calibrators import Calibrators
    from ranker.evaluation.metrics import FloatArray
    from ranker.evaluation.rows import EvaluationRows
    from ranker.evaluation.task_evaluation import TaskEvaluation
    from ranker.schema import Schema


def tasks_json(
    schema: Schema, evaluations: Mapping[str, TaskEvaluation], model: str
) -> dict[str, object]:
    """Task -> family, rows and metrics of one model, for the tasks that it predicts."""
    return {
        task: {"family": schema.task(task).family, **evaluation.to_json(model)}
        for task, evaluation in evaluations.items()
        if model in evaluation.estimates
    }


def differences_json(
    evaluations: Mapping[str, TaskEvaluation], a: str, b: str
) -> dict[str, object]:
    """Task -> metric -> paired difference a − b with its verdict, for the tasks that b predicts."""
    return {
        task: {
            metric: {**estimate.to_json(), "verdict": evaluation.verdict(a, b, metric)}
            for metric, estimate in evaluation.difference(a, b).items()
        }
        for task, evaluation in evaluations.items()
        if b in evaluation.estimates
    }


def calibration_json(
    predictions: Mapping[str, FloatArray],
    rows: EvaluationRows,
    *,
    num_bins: int,
    confidence: float,
) -> dict[str, object]:
    """Task -> calibration bins, for the tasks with at least a label a bin."""
    import numpy as np

    from ranker.evaluation.calibration import calibration_curve

    return {
        task: [
            asdict(bin_)
            for bin_ in calibration_curve(
                rows.labels[task], values, num_bins, users=rows.users, confidence=confidence
            )
        ]
        for task, values in predictions.items()
        if int((~np.isnan(rows.labels[task])).sum()) >= num_bins
    }


def calibrators_json(calibrators: Calibrators) -> dict[str, object]:
    """Task -> its calibrator, what it was fitted on or why there is none."""
    return {task: one.model_dump(mode="json") for task, one in calibrators.tasks.items()}


def experts_json(gates: Mapping[str, FloatArray]) -> dict[str, object]:
    """Expert utilisation by task, with the polarized-gate alarm; empty without gates."""
    import torch

    from ranker.diagnosis.gates import expert_utilisation, polarized_tasks

    if not gates:
        return {}
    utilisation = expert_utilisation({t: torch.from_numpy(w) for t, w in gates.items()})
    polarized = polarized_tasks(utilisation)
    return {
        task: {
            "mean_weights": list(found.mean_weights),
            "entropy_nats": found.entropy_nats,
            "row_entropy_nats": found.row_entropy_nats,
            "polarized": task in polarized,
        }
        for task, found in utilisation.items()
    }


def model_json(bundle: ModelBundle, store: EncodedStore, first_row: int) -> dict[str, object]:
    """Parameters, and multiplications for an example as stored from ``first_row`` on."""
    import numpy as np

    from ranker.data.loader import read_batch
    from ranker.diagnosis.cost import count_parameters, multiplications_per_example

    some = np.arange(first_row, min(first_row + 64, store.num_rows), dtype=np.int64)
    parameters = count_parameters(bundle.model)
    return {
        "kind": bundle.config.model.bottom.kind,
        "parameters": parameters.embedding + parameters.dense,
        "embedding_parameters": parameters.embedding,
        "dense_parameters": parameters.dense,
        "multiplications_per_example": multiplications_per_example(
            bundle.model, read_batch(store, some, bundle.encoders.sizes)
        ),
    }
