"""Which of two models is better, task by task, and whether one may replace the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ranker.evaluation.intervals import Estimate
from ranker.evaluation.metrics import Kind
from ranker.evaluation.task_evaluation import TaskEvaluation, Verdict

# What decides: order for probabilities, as lists are ranked by them; size and order for amounts.
HEADLINE_METRICS: Mapping[Kind, tuple[str, ...]] = {
    "binary": ("auc",),
    "regression": ("rmse", "xauc"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskComparison:
    """Model ``a`` against model ``b`` on one task by one metric; ``difference`` is a - b, paired.

    ``verdict`` speaks about ``a``.
    """

    task: str
    metric: str
    a: Estimate
    b: Estimate
    difference: Estimate
    verdict: Verdict


def compare(
    evaluation_by_task: Mapping[str, TaskEvaluation], *, a: str, b: str
) -> list[TaskComparison]:
    """Compare two evaluated models by the headline metrics of every task, in the tasks' order.

    Binary tasks are compared by AUC, regression tasks by RMSE and by XAUC (a row each).

    Raises:
        ValueError: a model was not evaluated on one of the tasks.
    """
    comparisons = []
    for task, evaluation in evaluation_by_task.items():
        differences = evaluation.difference(a, b)
        comparisons += [
            TaskComparison(
                task=task,
                metric=metric,
                a=evaluation.estimates[a][metric],
                b=evaluation.estimates[b][metric],
                difference=differences[metric],
                verdict=evaluation.verdict(a, b, metric),
            )
            for metric in HEADLINE_METRICS[evaluation.kind]
        ]
    return comparisons


def is_worse(comparisons: Iterable[TaskComparison]) -> bool:
    """The gate: whether ``a`` is worse than ``b`` by any headline metric of any task.

    ``cannot tell`` passes. Verdicts aren't corrected for their number: of two equally good models
    one fails by chance with probability of at most m (1 - confidence) / 2 for m comparisons.
    """
    return any(comparison.verdict == "worse" for comparison in comparisons)
