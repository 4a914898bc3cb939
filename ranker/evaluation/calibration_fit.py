"""Fitting calibrators on counts of windows that were predicted before they were trained on.

Shapes: ``B`` bins that are not empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field
from scipy.optimize import isotonic_regression
from scipy.special import expit, log_expit

from ranker.config import Config
from ranker.evaluation.calibration_counts import Counts, CountsByWindow, merged
from ranker.evaluation.calibrators import (
    Calibrator,
    Calibrators,
    Evidence,
    Float64Array,
    Identity,
    Isotonic,
    Platt,
    Ratio,
    TaskCalibration,
)
from ranker.schema import TaskSpec

SLOPE_PULL = 1e-3  # towards 1; matters only where all predictions are nearly alike
MAX_STEPS = 100


class CalibrationConfig(Config):
    """How a run's calibrators are fitted, at its end, on the windows it has just predicted.

    Attributes:
        kind: ``platt`` (two numbers) or ``isotonic`` (a free rising function) for binary tasks.
        regression: ``ratio`` brings the mean prediction to the mean label.
        min_labels: the last window alone is used where it holds so many positives and so many
            negatives; else windows before it are taken in, newest first.
        min_rows: the same for the labels of a regression, whose spread may be twice their mean.
        max_windows: at most so many; a task that is still short stays as it is.
    """

    kind: Literal["platt", "isotonic", "none"] = "platt"
    regression: Literal["ratio", "none"] = "ratio"
    min_labels: int = Field(default=100, ge=1)
    min_rows: int = Field(default=1_000, ge=1)
    max_windows: int = Field(default=7, ge=1)


def fit_calibrators(
    counts_by_window: CountsByWindow, tasks: Sequence[TaskSpec], config: CalibrationConfig
) -> Calibrators:
    """A calibrator a task, from the counts of windows in time order."""
    return Calibrators(
        tasks={
            task.name: TaskCalibration(
                negatives_kept=task.negatives_kept,
                calibrator=_fit_task(counts_by_window, task, config),
            )
            for task in tasks
        }
    )


def last_windows(counts_by_window: CountsByWindow, config: CalibrationConfig) -> CountsByWindow:
    """The newest ``max_windows`` windows, in time order."""
    return {window: counts_by_window[window] for window in _newest(counts_by_window, config)}


def _newest(counts_by_window: CountsByWindow, config: CalibrationConfig) -> list[str]:
    return list(counts_by_window)[-config.max_windows :]


def _fit_task(
    counts_by_window: CountsByWindow, task: TaskSpec, config: CalibrationConfig
) -> Calibrator:
    kind = config.kind if task.kind == "binary" else config.regression
    if kind == "none":
        return Identity(reason="the config asks for none")
    windows: list[str] = []
    counts = merged([])
    for window in reversed(_newest(counts_by_window, config)):
        windows.insert(0, window)
        counts = merged([counts_by_window[one][task.name] for one in windows])
        if _labels_of_the_rarer_kind(counts, task) >= _needed(task, config):
            break
    else:
        return Identity(reason=_too_few(counts, task, len(windows), config))
    evidence = Evidence(
        windows=tuple(windows),
        rows=int(counts.rows.sum()),
        positives=int(counts.label_sum.sum()) if task.kind == "binary" else None,
    )
    match kind:
        case "platt":
            return fit_platt(counts, evidence)
        case "isotonic":
            return fit_isotonic(counts, evidence)
        case "ratio":
            return fit_ratio(counts, task, evidence)


def _needed(task: TaskSpec, config: CalibrationConfig) -> int:
    return config.min_labels if task.kind == "binary" else config.min_rows


def _labels_of_the_rarer_kind(counts: Counts, task: TaskSpec) -> int:
    rows = int(counts.rows.sum())
    if task.kind == "regression":
        return rows
    positives = int(counts.label_sum.sum())
    return min(positives, rows - positives)


def _too_few(counts: Counts, task: TaskSpec, num_windows: int, config: CalibrationConfig) -> str:
    if num_windows == 0:
        return "no window was predicted before it was trained on"
    rows, positives = int(counts.rows.sum()), int(counts.label_sum.sum())
    held = f"{positives} positives and {rows - positives} negatives"
    if task.kind == "regression":
        held = f"{rows} labels"
    return f"the last {num_windows} windows hold {held}, fewer than {_needed(task, config)}"


def fit_platt(counts: Counts, evidence: Evidence) -> Calibrator:
    """The most likely slope and intercept on smoothed labels (Platt, 1999): Newton's method.

    A positive counts as (P + 1) / (P + 2), a negative as 1 / (N + 2): no finite data make an
    outcome certain.
    """
    positives, rows = counts.label_sum, counts.rows.astype(np.float64)
    total = positives.sum()
    high, low = (total + 1) / (total + 2), 1 / (rows.sum() - total + 2)
    targets = positives * high + (rows - positives) * low  # [B]
    x = counts.prediction_sum / rows
    design = np.stack([x, np.ones_like(x)])  # [2, B]

    def loss(parameters: Float64Array) -> float:
        z = parameters @ design
        fit = -(targets * log_expit(z) + (rows - targets) * log_expit(-z)).sum()
        return float(fit + SLOPE_PULL * (parameters[0] - 1) ** 2 / 2)

    parameters = np.array([1.0, 0.0])
    pull = np.array([SLOPE_PULL, 0.0])
    for _ in range(MAX_STEPS):
        p = expit(parameters @ design)
        gradient = design @ (rows * p - targets) + pull * (parameters - 1)
        hessian = (design * (rows * p * (1 - p))) @ design.T + np.diag(pull)
        step = np.linalg.lstsq(hessian, gradient, rcond=None)[0]
        size, start = 1.0, loss(parameters)
        while size > 1e-9 and not loss(parameters - size * step) <= start:
            size /= 2
        moved = parameters - size * step
        if np.abs(moved - parameters).max() < 1e-12:
            break
        parameters = moved
    slope, intercept = float(parameters[0]), float(parameters[1])
    if not (slope > 0 and np.isfinite(parameters).all()):
        return Identity(
            reason=f"Platt's slope came out as {slope:.3g}: higher predictions went with fewer "
            "positives, and a calibrator must not reverse the order"
        )
    return Platt(slope=slope, intercept=intercept, evidence=evidence)


def fit_isotonic(counts: Counts, evidence: Evidence) -> Calibrator:
    """The rising function nearest to the labels, as knots.

    Knots stay half a row away from 0 and 1: a window without a positive makes none impossible.
    """
    rows = counts.rows.astype(np.float64)
    steps = isotonic_regression(counts.label_sum / rows, weights=rows).blocks
    starts = np.asarray(steps[:-1], dtype=np.int64)
    step_rows = np.add.reduceat(rows, starts)
    x = expit(np.add.reduceat(counts.prediction_sum, starts) / step_rows)
    margin = 0.5 / rows.sum()
    y = np.clip(np.add.reduceat(counts.label_sum, starts) / step_rows, margin, 1 - margin)
    if not all((np.diff([0.0, *knots, 1.0]) > 0).all() for knots in (x, y)):
        return Identity(reason="predictions differ too little for an isotonic regression")
    return Isotonic(predictions=tuple(x.tolist()), labels=tuple(y.tolist()), evidence=evidence)


def fit_ratio(counts: Counts, task: TaskSpec, evidence: Evidence) -> Calibrator:
    """The factor that brings the mean prediction above the task's minimum to the labels'."""
    above = counts.rows.sum() * task.minimum
    labels, predictions = counts.label_sum.sum() - above, counts.prediction_sum.sum() - above
    if not (labels > 0 and predictions > 0):
        return Identity(
            reason=f"mean label or mean prediction is not above the minimum ({task.minimum:g})"
        )
    return Ratio(factor=float(labels / predictions), minimum=task.minimum, evidence=evidence)
