"""What shown items are taken to bring: examination by rank, then feedback.

At each rank the user examines the item with an assumed probability; what he doesn't examine brings
nothing. One examination is shared by all tasks of an impression; given it, tasks are drawn
independently, apart from `TaskSpec.conditional_on`.

Shapes: ``M`` impressions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ranker.schema import TaskSpec

FloatArray = NDArray[np.float64]
OutcomesByTask = dict[str, FloatArray]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExaminationCurve:
    """An assumption, not a measurement: how far down users look.

    Attributes:
        probabilities: P(examined) at rank 1, 2, ...; 1 at the top.
    """

    name: str
    probabilities: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.probabilities or self.probabilities[0] != 1:
            raise ValueError(f"examination curve {self.name!r}: must be 1 at rank 1")
        if not all(0 <= probability <= 1 for probability in self.probabilities):
            raise ValueError(f"examination curve {self.name!r}: probabilities must be in [0, 1]")

    def at(self, ranks: NDArray[np.int64]) -> FloatArray:
        """P(examined) at each of ``ranks`` [M].

        Raises:
            ValueError: a rank below 1 or beyond the curve.
        """
        num_ranks = len(self.probabilities)
        if ranks.size and not (ranks.min() >= 1 and ranks.max() <= num_ranks):
            raise ValueError(
                f"examination curve {self.name!r} covers ranks 1 to {num_ranks}, got "
                f"{ranks.min()} to {ranks.max()}; give a longer curve or smaller slates"
            )
        return np.array(self.probabilities)[ranks - 1]


def power_examination(*, eta: float, num_ranks: int) -> ExaminationCurve:
    """P(examined at rank r) = r^−eta; eta 1 is 1, 1/2, 1/3, ..."""
    if eta < 0:
        raise ValueError(f"eta must be >= 0, got {eta}; lower ranks can't be examined more")
    curve = tuple(float(rank) ** -eta for rank in range(1, num_ranks + 1))
    return ExaminationCurve(name=f"power(eta={eta:g})", probabilities=curve)


def full_examination(*, num_ranks: int) -> ExaminationCurve:
    """Everything shown is examined."""
    return ExaminationCurve(name="none", probabilities=(1.0,) * num_ranks)


def expected_outcomes(
    predictions: Mapping[str, FloatArray], *, examination: FloatArray, tasks: Sequence[TaskSpec]
) -> OutcomesByTask:
    """Mean outcome of each impression by task, each [M].

    Args:
        predictions: task → mean label of an examined impression (of one where the task's
            condition happened, if it has one), [M].
        examination: P(examined), [M].
        tasks: the tasks wanted; a task's condition must be among ``predictions``.
    """
    expected: OutcomesByTask = {}
    for task in tasks:
        mean = examination * predictions[task.name]
        if task.conditional_on is not None:
            mean = mean * predictions[task.conditional_on]
        expected[task.name] = mean
    return expected


def draw_outcomes(
    predictions: Mapping[str, FloatArray],
    *,
    examination: FloatArray,
    tasks: Sequence[TaskSpec],
    relative_variances: Mapping[str, float],
    rng: np.random.Generator,
) -> OutcomesByTask:
    """Draw each impression's outcomes by task, each [M]; their mean is `expected_outcomes`.

    Binary: a coin with the predicted probability. Regression: minimum + Gamma with mean
    m = prediction − minimum and variance v·m², v from ``relative_variances``: right-skewed, never
    below the task's minimum, and exact in the mean (there is no cut at a task's cap for that
    reason). Not examined: 0.

    Args:
        predictions: as in `expected_outcomes`.
        examination: P(examined), [M].
        tasks: the tasks wanted; a task's condition must stand before it.
        relative_variances: regression task → v.
        rng: consumed in the order of ``tasks``.
    """
    num_impressions = len(examination)
    examined = rng.random(num_impressions) < examination
    drawn: OutcomesByTask = {}
    for task in tasks:
        happens = examined
        if task.conditional_on is not None:
            happens = examined & (drawn[task.conditional_on] > 0)
        mean = predictions[task.name]
        if task.kind == "binary":
            values = (rng.random(num_impressions) < mean).astype(np.float64)
            values[np.isnan(mean)] = np.nan
        else:
            excess = _draw_gamma(
                mean - task.minimum, relative_variance=relative_variances[task.name], rng=rng
            )
            values = task.minimum + excess
        drawn[task.name] = np.where(happens, values, 0.0)
    return drawn


def _draw_gamma(
    means: FloatArray, *, relative_variance: float, rng: np.random.Generator
) -> FloatArray:
    if not np.isfinite(relative_variance) or relative_variance <= 0:
        return means
    shape = 1 / relative_variance
    return rng.gamma(shape, size=len(means)) * (means / shape)
