"""Test AUC of several rankers on the same rows, and paired intervals of their differences.

Shapes: N test rows, S seeds, R bootstrap replicates, U users.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from record import Figure

from ranker.evaluation.intervals import draw_user_weights
from ranker.evaluation.ranking import weighted_auc

FloatArray = npt.NDArray[np.float64]
NUM_REPLICATES = 400
_BLOCK = 8
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class TestRows:
    """The log's test rows in time order; time stamps are all different."""

    __test__ = False  # no test class of pytest's

    time_ms: npt.NDArray[np.int64]
    users: npt.NDArray[np.int64]
    labels: Mapping[str, FloatArray]


def read_test_rows(data: Path, *, tasks: Sequence[str], test_from_ms: int) -> TestRows:
    """The rows of ``data``/log.parquet from the test day on."""
    table = pq.read_table(
        data / "log.parquet",
        columns=["time_ms", "user_id", *tasks],
        filters=[("time_ms", ">=", test_from_ms)],
    )
    _, users = np.unique(table.column("user_id").to_numpy(), return_inverse=True)
    return TestRows(
        time_ms=table.column("time_ms").to_numpy(),
        users=users,
        labels={task: table.column(task).to_numpy().astype(np.float64) for task in tasks},
    )


def read_predictions(path: Path, rows: TestRows) -> dict[str, FloatArray]:
    """A run's probabilities by task, in the order of ``rows``.

    Raises:
        ValueError: not exactly the test rows were predicted.
    """
    table = pq.read_table(path).sort_by("time_ms")
    if not np.array_equal(table.column("time_ms").to_numpy(), rows.time_ms):
        raise ValueError(f"{path}: does not hold every test row exactly once")
    return {task: table.column(task).to_numpy().astype(np.float64) for task in rows.labels}


def bootstrap_auc(
    rows: TestRows, predictions: Sequence[Mapping[str, FloatArray]], *, rng: np.random.Generator
) -> dict[str, FloatArray]:
    """Task -> AUC averaged over the S ``predictions`` of one ranker: [1 + R], the value first.

    Whole users are drawn, the same ones for every ranker that gets an ``rng`` of the same seed.
    """
    aucs = {
        task: [
            weighted_auc(labels=labels, predictions=by_task[task], users=rows.users)
            for by_task in predictions
        ]
        for task, labels in rows.labels.items()
    }
    num_users = int(rows.users.max()) + 1
    blocks = [np.ones((1, num_users))]
    draws = draw_user_weights(
        num_users=num_users, num_replicates=NUM_REPLICATES, block_size=_BLOCK, rng=rng
    )
    parts: dict[str, list[FloatArray]] = {task: [] for task in aucs}
    for weights in (*blocks, *draws):
        for task, functions in aucs.items():
            parts[task].append(np.mean([auc(weights) for auc in functions], axis=0))
    return {task: np.concatenate(values) for task, values in parts.items()}


def interval_figure(values: FloatArray) -> Figure:
    """A figure of what `bootstrap_auc` gives, or of the difference of two of them."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values[1:], [tail, 1 - tail])
    return Figure(value=float(values[0]), ci_low=float(low), ci_high=float(high))
