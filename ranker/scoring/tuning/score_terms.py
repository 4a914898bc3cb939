"""A score as a linear function of its weights: one matrix product then gives any number of orders.

Shapes: `N` rows, `T` tasks that can be weighed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ranker.evaluation.metrics import FloatArray
from ranker.schema import TaskSpec
from ranker.score_weights import ScoreWeights
from ranker.scoring.combine import combine


def weighable_tasks(predicted: Sequence[str], tasks: Sequence[TaskSpec]) -> list[TaskSpec]:
    """The tasks that have predictions, and whose condition, where there is one, has them too."""
    return [
        task
        for task in tasks
        if task.name in predicted
        and (task.conditional_on is None or task.conditional_on in predicted)
    ]


def score_terms(
    predictions: Mapping[str, FloatArray],
    *,
    today: ScoreWeights,
    tasks: Sequence[TaskSpec],
    weighable: Sequence[TaskSpec],
    lists: npt.NDArray[np.int64],
) -> FloatArray:
    """What each task adds to the score for a weight of 1: [N, T].

    ``terms @ weights`` orders rows as `combine` does: a weighted sum is linear in its weights, and
    so is the logarithm of a weighted product. The terms are `combine`'s own scores of one task;
    ``lists`` [N] are the codes of the lists that a rank-normalised sum ranks within.

    Raises:
        ValueError: as `combine`.
    """
    columns = []
    for task in weighable:
        alone = today.model_copy(update={"weights": {task.name: 1.0}})
        score = combine(predictions, score_weights=alone, tasks=tasks, requests=lists)
        columns.append(np.log(score) if today.combination == "weighted_product" else score)
    return np.stack(columns, axis=1)
