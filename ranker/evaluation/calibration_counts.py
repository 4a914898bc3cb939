"""Counts of predictions and labels, window by window: all that a calibrator is fitted on.

Predictions of a binary task are counted in bins of their log odds, a tenth wide. Counts are small
whatever a window's size, and they travel in the bundle, so that training on fits the same
calibrators as training at once.

Shapes: ``N`` rows, ``B`` bins that are not empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from ranker.data.parquet import DataError
from ranker.evaluation.calibrators import Float64Array, FloatArray, log_odds
from ranker.schema import TaskSpec

COUNTS_FILE = "calibration_counts.parquet"
BIN_WIDTH = 0.1  # of log odds: neighbours in a bin differ by a tenth in their odds, at most
IntArray = npt.NDArray[np.int64]
COUNT_FIELDS = {
    "window": pa.string(),
    "task": pa.string(),
    "bin": pa.int64(),
    "rows": pa.int64(),
    "label_sum": pa.float64(),
    "prediction_sum": pa.float64(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """A task's rows in the bins of one or several windows, [B] each.

    ``prediction_sum`` is of log odds in a binary task, else of predictions (in one bin).
    """

    bins: IntArray
    rows: IntArray
    label_sum: Float64Array
    prediction_sum: Float64Array


CountsByTask = Mapping[str, Counts]
CountsByWindow = Mapping[str, CountsByTask]


def count_window(
    labels: Mapping[str, FloatArray],
    predictions: Mapping[str, FloatArray],
    tasks: Sequence[TaskSpec],
) -> CountsByTask:
    """Count one window: labels [N] (NaN: not observed) and raw predictions [N] by task."""
    counts = {}
    for task in tasks:
        observed = ~np.isnan(labels[task.name])
        label = labels[task.name][observed].astype(np.float64)
        values = predictions[task.name][observed].astype(np.float64)
        if task.kind == "binary":
            values = log_odds(values)
            index = np.floor(values / BIN_WIDTH).astype(np.int64)
        else:
            index = np.zeros(len(values), dtype=np.int64)
        counts[task.name] = _grouped(index, np.ones(len(index), np.int64), label, values)
    return counts


def counts_table(counts_by_window: CountsByWindow) -> pa.Table:
    """A row a window, task and bin."""
    columns: dict[str, list[object]] = {name: [] for name in COUNT_FIELDS}
    for window, by_task in counts_by_window.items():
        for task, counts in by_task.items():
            columns["window"] += [window] * len(counts.bins)
            columns["task"] += [task] * len(counts.bins)
            columns["bin"] += counts.bins.tolist()
            columns["rows"] += counts.rows.tolist()
            columns["label_sum"] += counts.label_sum.tolist()
            columns["prediction_sum"] += counts.prediction_sum.tolist()
    return pa.table(columns, schema=pa.schema(list(COUNT_FIELDS.items())))


def read_counts(table: pa.Table, tasks: Sequence[TaskSpec], source: str) -> CountsByWindow:
    """What `counts_table` made.

    Raises:
        DataError: other columns.
    """
    found = dict(zip(table.schema.names, table.schema.types, strict=True))
    if found != COUNT_FIELDS:
        raise DataError(f"{source}: expected the columns {[*COUNT_FIELDS]}, got {[*found]}")
    frame = table.to_pandas()
    by_window: dict[str, dict[str, Counts]] = {}
    for window, of_window in frame.groupby("window", sort=False):
        by_task = dict(iter(of_window.groupby("task", sort=False)))
        by_window[str(window)] = {
            task.name: _counts(by_task.get(task.name, frame.iloc[:0])) for task in tasks
        }
    return by_window


def _counts(frame: pd.DataFrame) -> Counts:
    return Counts(
        bins=np.asarray(frame["bin"], dtype=np.int64),
        rows=np.asarray(frame["rows"], dtype=np.int64),
        label_sum=np.asarray(frame["label_sum"], dtype=np.float64),
        prediction_sum=np.asarray(frame["prediction_sum"], dtype=np.float64),
    )


def merged(parts: Sequence[Counts]) -> Counts:
    """The counts of several windows together."""
    if not parts:
        none = np.zeros(0)
        return _grouped(np.zeros(0, np.int64), np.zeros(0, np.int64), none, none)
    return _grouped(
        np.concatenate([part.bins for part in parts]),
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.label_sum for part in parts]),
        np.concatenate([part.prediction_sum for part in parts]),
    )


def _grouped(
    index: IntArray, rows: IntArray, labels: Float64Array, predictions: Float64Array
) -> Counts:
    """Sums by bin; bins rise."""
    first = int(index.min(initial=0))
    code = index - first
    found = np.flatnonzero(np.bincount(code))

    def summed(weights: npt.NDArray[np.number]) -> Float64Array:
        return np.bincount(code, weights=weights).astype(np.float64)[found]

    return Counts(
        bins=found + first,
        rows=summed(rows).astype(np.int64),
        label_sum=summed(labels),
        prediction_sum=summed(predictions),
    )
