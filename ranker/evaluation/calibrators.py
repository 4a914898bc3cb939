"""Calibrators: a rising function for each task, from raw predictions to what happens.

They are fitted (`ranker.evaluation.calibration_fit`) on predictions of rows the model had not seen
and travel in the bundle as JSON. None can reverse an order: slopes and factors are positive.
Every one is a function of the raw prediction alone, so no position can change what it returns.

Shapes: ``N`` rows, ``M`` knots.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self, assert_never

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator
from scipy.special import expit, logit

from ranker.config import Config, ConfigError, parse_config
from ranker.schema import TaskSpec

FloatArray = npt.NDArray[np.floating]
Float64Array = npt.NDArray[np.float64]

CALIBRATORS_FILE = "calibrators.json"
MIN_PROBABILITY = 1e-7  # float32 predictions know no number between 1 - 6e-8 and 1
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Identity(Config):
    """The prediction as it is; ``reason`` says why."""

    kind: Literal["identity"] = "identity"
    reason: str


class Evidence(Config):
    """What a calibrator was fitted on.

    Attributes:
        windows: oldest first; each was predicted before it was trained on.
        rows: rows with a label.
        positives: of a binary task.
    """

    windows: tuple[str, ...]
    rows: int
    positives: int | None = None


class Platt(Config):
    """sigmoid(slope · logit(p) + intercept) (Platt, 1999)."""

    kind: Literal["platt"] = "platt"
    slope: Positive
    intercept: Finite
    evidence: Evidence


class Isotonic(Config):
    """Straight lines from (0, 0) through the knots to (1, 1).

    A knot is a step of the isotonic regression (Zadrozny and Elkan, KDD 2002): mean prediction and
    mean label of its rows. Both rise from knot to knot, so that, unlike the step function itself,
    this makes no ties.
    """

    kind: Literal["isotonic"] = "isotonic"
    predictions: tuple[Positive, ...]
    labels: tuple[Positive, ...]
    evidence: Evidence

    @model_validator(mode="after")
    def _check(self) -> Self:
        rising = all((np.diff([0.0, *knots, 1.0]) > 0).all() for knots in self.knots)
        if len(self.predictions) != len(self.labels) or not rising:
            raise ValueError(
                "isotonic: 'predictions' and 'labels' must be equally long and rise between 0 and 1"
            )
        return self

    @property
    def knots(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Predictions and labels, [M] each."""
        return self.predictions, self.labels


class Ratio(Config):
    """minimum + factor · (prediction − minimum), for a regression task."""

    kind: Literal["ratio"] = "ratio"
    factor: Positive
    minimum: Finite
    evidence: Evidence


Calibrator = Annotated[Identity | Platt | Isotonic | Ratio, Field(discriminator="kind")]


class TaskCalibration(Config):
    """A task's calibrator, and the correction of negative down-sampling that follows it.

    ``negatives_kept`` is the schema's: the share of the task's negatives that the log kept.
    """

    negatives_kept: float = Field(default=1.0, gt=0, le=1)
    calibrator: Calibrator


class Calibrators(Config):
    """Task -> how its raw predictions become those that people see."""

    tasks: dict[str, TaskCalibration]

    def apply(self, predictions: Mapping[str, FloatArray]) -> dict[str, Float64Array]:
        """Calibrated predictions [N] by task, of the population before any down-sampling.

        Conditional tasks stay conditional. A task without a calibrator stays as it is.

        Raises:
            ValueError: a binary prediction that is no probability.
        """
        corrected = {}
        for task, values in self.apply_in_log_unit(predictions).items():
            calibration = self.tasks.get(task)
            kept = 1.0 if calibration is None else calibration.negatives_kept
            corrected[task] = undo_down_sampling(values, negatives_kept=kept)
        return corrected

    def apply_in_log_unit(self, predictions: Mapping[str, FloatArray]) -> dict[str, Float64Array]:
        """The same without the correction: comparable with the labels of a down-sampled log."""
        calibrated = {}
        for task, values in predictions.items():
            calibration = self.tasks.get(task)
            raw = values.astype(np.float64)
            calibrated[task] = raw if calibration is None else calibrate(calibration, raw, task)
        return calibrated

    @property
    def kind_by_task(self) -> dict[str, str]:
        """Task -> ``platt``, ``isotonic``, ``ratio`` or ``identity``."""
        return {task: one.calibrator.kind for task, one in self.tasks.items()}

    @property
    def down_sampled(self) -> dict[str, float]:
        """The tasks whose log is short of negatives -> the share that it kept."""
        shares = {task: one.negatives_kept for task, one in self.tasks.items()}
        return {task: share for task, share in shares.items() if share < 1}


def identity_calibrators(tasks: tuple[TaskSpec, ...], reason: str) -> Calibrators:
    """No calibration, but the correction of down-sampling that the schema asks for."""
    return Calibrators(
        tasks={
            task.name: TaskCalibration(
                negatives_kept=task.negatives_kept, calibrator=Identity(reason=reason)
            )
            for task in tasks
        }
    )


def calibrate(calibration: TaskCalibration, raw: Float64Array, task: str) -> Float64Array:
    """Calibrated predictions [N] in the unit of the log; never in another order."""
    calibrator = calibration.calibrator
    match calibrator:
        case Identity():
            return raw
        case Platt():
            _require_probabilities(raw, task)
            return np.asarray(expit(calibrator.slope * log_odds(raw) + calibrator.intercept))
        case Isotonic():
            _require_probabilities(raw, task)
            x, y = calibrator.knots
            return np.interp(raw, [0.0, *x, 1.0], [0.0, *y, 1.0])
        case Ratio():
            return calibrator.minimum + calibrator.factor * (raw - calibrator.minimum)
        case _:
            assert_never(calibrator)


def undo_down_sampling(predictions: Float64Array, *, negatives_kept: float) -> Float64Array:
    """From a log that kept a share w of the negatives to all: p / (p + (1 - p) / w), [N].

    He et al. (ADKDD 2014), section 6.3. Odds are multiplied by w, so the order stays.
    """
    if negatives_kept == 1:
        return predictions
    return predictions / (predictions + (1.0 - predictions) / negatives_kept)


def log_odds(predictions: FloatArray) -> Float64Array:
    """logit(p) [N], p cut to [1e-7, 1 - 1e-7]."""
    values = predictions.astype(np.float64)
    return np.asarray(logit(np.clip(values, MIN_PROBABILITY, 1 - MIN_PROBABILITY)))


def read_calibrators(path: Path, tasks: tuple[TaskSpec, ...]) -> Calibrators:
    """Read a bundle's calibrators.

    Raises:
        ConfigError: no JSON, not calibrators, or not those of ``tasks``.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path}: is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: expected an object with 'tasks'")
    found = parse_config(Calibrators, document, source=str(path))
    expected = {task.name: task.negatives_kept for task in tasks}
    got = {task: one.negatives_kept for task, one in found.tasks.items()}
    if got != expected:
        raise ConfigError(
            f"{path}: expected the schema's tasks and shares of kept negatives {expected}, got "
            f"{got}; train again"
        )
    return found


def _require_probabilities(values: Float64Array, task: str) -> None:
    bad = ~((values >= 0) & (values <= 1))
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(
            f"predictions: task {task!r} must be probabilities in [0, 1], got {values[row]} in row "
            f"{row} (such rows: {int(bad.sum()):,})"
        )
