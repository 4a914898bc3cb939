"""A hidden truth behind a synthetic log: rows in, the two tasks' true probabilities out.

A task's logit is a scaled sum of main effects, low-rank interactions of all categorical features
(the pairwise part of a factorisation machine; Rendle, ICDM 2010), and a non-linear function of the
numbers. Intercept and scale are set by bisection so that the task has the wanted positive rate and
so that a ranker which knew every probability would reach the wanted AUC, the Bayes AUC.

Shapes: N rows, F categorical features, V ids of a feature, R rank, D numbers, K tasks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

RANK = 4
MAIN_WEIGHT, INTERACTION_WEIGHT, NUMERIC_WEIGHT = 1.0, 0.8, 0.6
ZIPF_EXPONENT = 1.05
_BISECTIONS = 30
_MAX_SCALE = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a task should look like."""

    name: str
    positive_rate: float
    bayes_auc: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Rows of a log: ranks 0 .. V - 1 of ids by feature ([N] each), and numbers [N, D]."""

    ranks: Mapping[str, IntArray]
    numbers: FloatArray


class Truth:
    """The drawn effects of every id; memory grows with the vocabularies, not with the rows."""

    def __init__(
        self,
        *,
        vocabularies: Mapping[str, int],
        num_numbers: int,
        tasks: Sequence[Task],
        rng: np.random.Generator,
    ) -> None:
        """Draw effects for ``vocabularies`` (feature -> V); `calibrate` must follow."""
        self.tasks = tuple(tasks)
        width = len(tasks) + RANK
        # [V, K + R]: main effect of each task, then the shared latent vector
        self._effects = {
            name: rng.standard_normal((size, width), dtype=np.float32)
            for name, size in vocabularies.items()
        }
        self._task_rotation = rng.uniform(0.5, 1.5, (len(tasks), RANK))  # [K, R]
        self._numeric = rng.standard_normal((3, num_numbers, len(tasks))) / np.sqrt(num_numbers)
        self._scales = np.ones(len(tasks))
        self._intercepts = np.zeros(len(tasks))

    def calibrate(self, pilot: Inputs) -> None:
        """Set every task's scale and intercept on ``pilot`` rows of the same distribution."""
        raw = self._raw(pilot)
        for number, task in enumerate(self.tasks):
            scale, intercept = _calibrate(raw[:, number], task)
            self._scales[number], self._intercepts[number] = scale, intercept

    def probabilities(self, inputs: Inputs) -> FloatArray:
        """True probability of each task, [N, K]."""
        logits = self._raw(inputs) * self._scales + self._intercepts
        return np.asarray(expit(logits), dtype=np.float64)

    def _raw(self, inputs: Inputs) -> FloatArray:
        """Sum of the effects before scale and intercept, [N, K]; each part has about unit size."""
        num_tasks, num_features = len(self.tasks), len(self._effects)
        num_rows = len(inputs.numbers)
        main = np.zeros((num_rows, num_tasks))
        total = np.zeros((num_rows, RANK))
        squares = np.zeros((num_rows, RANK))
        for name, effects in self._effects.items():
            rows = effects[inputs.ranks[name]]  # [N, K + R]
            main += rows[:, :num_tasks]
            total += rows[:, num_tasks:]
            squares += np.square(rows[:, num_tasks:], dtype=np.float64)
        pairs = 0.5 * (np.square(total) - squares)  # [N, R], the sum over pairs of features
        pairs /= np.sqrt(max(1, num_features * (num_features - 1) / 2) * RANK)
        interaction = pairs @ self._task_rotation.T
        linear, inner, product = (inputs.numbers @ weights for weights in self._numeric)
        numeric = linear + np.sin(2 * inner) + linear * np.tanh(product)
        return (
            MAIN_WEIGHT * main / np.sqrt(num_features)
            + INTERACTION_WEIGHT * interaction
            + NUMERIC_WEIGHT * numeric
        )


def draw_zipf(num_rows: int, num_ids: int, *, rng: np.random.Generator) -> IntArray:
    """Ranks 0 .. num_ids - 1, [N], with P(rank) about proportional to (rank + 1) ** -1.05.

    The inverse of the continuous power law's distribution function, cut to whole ranks: it needs
    no table, however many ids there are.
    """
    power = 1 - ZIPF_EXPONENT
    largest = (num_ids + 1.0) ** power
    values = (1 + rng.random(num_rows) * (largest - 1)) ** (1 / power)
    return np.minimum(values.astype(np.int64) - 1, num_ids - 1)


def bayes_auc(probabilities: FloatArray) -> float:
    """Expected AUC [over the labels' draws] of ranking rows by their true probabilities [N].

    The share of positive-negative pairs in the right order: row i is positive with p_i, row j
    negative with 1 - p_j.
    """
    p = np.sort(probabilities)
    negatives = np.cumsum(1 - p) - (1 - p)  # expected negatives ranked below each row
    wins = float((p * negatives).sum())
    pairs = float(p.sum() * (1 - p).sum() - (p * (1 - p)).sum())
    return wins / pairs


def _calibrate(raw: FloatArray, task: Task) -> tuple[float, float]:
    """Scale and intercept that give ``task`` its Bayes AUC and positive rate on ``raw`` [N]."""
    low, high = 0.0, _MAX_SCALE
    for _ in range(_BISECTIONS):
        scale = (low + high) / 2
        intercept = _intercept(raw * scale, task.positive_rate)
        if bayes_auc(expit(raw * scale + intercept)) < task.bayes_auc:
            low = scale
        else:
            high = scale
    return scale, intercept


def _intercept(logits: FloatArray, positive_rate: float) -> float:
    low, high = -50.0 - logits.max(), 50.0 - logits.min()
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if expit(logits + middle).mean() < positive_rate:
            low = middle
        else:
            high = middle
    return float((low + high) / 2)
