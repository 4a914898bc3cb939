"""Metrics averaged over seeds, with intervals that know of both users and seeds.

A replicate draws whole users, the same for every arm, and for each arm as many seeds as it has,
with replacement. So an interval answers: what if other users had come, and other seeds been drawn?

Shapes: N rows, U users, S seeds, R replicates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from record import Figure

from ranker.evaluation.binary import measure_binary
from ranker.evaluation.intervals import draw_user_weights, percentile_estimate

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
CONFIDENCE = 0.95
NDCG_AT = 5
_BLOCK_CELLS = 2**19  # rows x replicates worked on at a time


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SeedSamples:
    """A metric of one arm: its values [S] and their replicates [R, S]."""

    values: FloatArray
    replicates: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """A metric averaged over seeds, and its replicates [R]."""

    value: float
    replicates: FloatArray

    def figure(self) -> Figure:
        """With its percentile interval."""
        return _figure(self.value, self.replicates)


def difference(a: Sample, b: Sample) -> Figure:
    """``a`` minus ``b``, paired."""
    return _figure(a.value - b.value, a.replicates - b.replicates)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JudgedTask:
    """One task's labels [N], and whose rows and lists they are (codes)."""

    labels: FloatArray
    users: IntArray
    lists: IntArray


class Predicted(NamedTuple):
    """One seed's predictions [N]: of the impressions, and of these in their lists."""

    own: FloatArray
    in_lists: FloatArray


def sample_metrics(
    task: JudgedTask,
    predictions_by_arm: Mapping[str, Sequence[Predicted]],
    *,
    num_replicates: int,
    rng: np.random.Generator,
) -> dict[str, dict[str, SeedSamples]]:
    """Arm -> metric (see `ranker.evaluation.binary.measure_binary`) -> samples.

    Every prediction of every arm and seed is measured under the same draws of users.
    """
    _, users = np.unique(task.users, return_inverse=True)
    _, first_rows, lists = np.unique(task.lists, return_index=True, return_inverse=True)
    measures = {
        (arm, seed): measure_binary(
            labels=task.labels,
            predictions=predictions.own,
            list_predictions=predictions.in_lists,
            users=users,
            lists=lists,
            user_of_list=users[first_rows],
            ndcg_at=NDCG_AT,
        )
        for arm, by_seed in predictions_by_arm.items()
        for seed, predictions in enumerate(by_seed)
    }
    num_users = int(users.max()) + 1
    blocks = draw_user_weights(
        num_users=num_users,
        num_replicates=num_replicates,
        block_size=int(np.clip(_BLOCK_CELLS // users.size, 1, 64)),
        rng=rng,
    )
    parts = {key: [measure(np.ones((1, num_users)))] for key, measure in measures.items()}
    for weights in blocks:
        for key, measure in measures.items():
            parts[key].append(measure(weights))
    samples: dict[str, dict[str, SeedSamples]] = {}
    for arm, by_seed in predictions_by_arm.items():
        of_seeds = [parts[arm, seed] for seed in range(len(by_seed))]
        samples[arm] = {
            metric: _join([[block[metric] for block in blocks] for blocks in of_seeds])
            for metric in of_seeds[0][0]
        }
    return samples


def _join(blocks_by_seed: Sequence[Sequence[FloatArray]]) -> SeedSamples:
    columns = np.stack([np.concatenate(blocks) for blocks in blocks_by_seed], axis=1)  # [1 + R, S]
    return SeedSamples(values=columns[0], replicates=columns[1:])


def average_over_seeds(samples: SeedSamples, *, metric: str, rng: np.random.Generator) -> Sample:
    """The mean over seeds; in each replicate over as many of them, drawn with replacement.

    ECE of a finite sample is biased upward and its replicates doubly so: they are moved down by
    their mean excess over the value.
    """
    num_replicates, num_seeds = samples.replicates.shape
    drawn = rng.integers(num_seeds, size=(num_replicates, num_seeds))
    means = np.take_along_axis(samples.replicates, drawn, axis=1).mean(axis=1)
    value = float(samples.values.mean())
    if metric == "ece":
        means = np.maximum(means - (means.mean() - value), 0)
    return Sample(value=value, replicates=means)


def _figure(value: float, replicates: FloatArray) -> Figure:
    estimate = percentile_estimate(
        value=value, replicates=replicates, confidence=CONFIDENCE, undefined="undefined"
    )
    return Figure(value=estimate.value, ci_low=estimate.ci_low, ci_high=estimate.ci_high)
