r"""What an order of logged impressions is worth, task by task, against today's order.

The value of task k is the mean of its observed labels, weighted by the discount of the rank that
the order gives each row:

    V_k(w) = sum_i o_ik d(r_i(w)) y_ik / sum_i o_ik d(r_i(w)),   d(r) = 1 / log2(1 + r) for r <= at

with o_ik = 1 where the label is observed and 0 where it is null. It is in the label's unit, and a
ratio of sums over users, so that resampling users resamples the sums. Its *change* is
± (V_k(w) - V_k(today)) / |V_k(today)|, minus for tasks of negative direction, and a family's change
is the mean of its tasks' changes, weighted by their importance.

Shapes: `N` rows, `U` users, `K` judged tasks, `C` vectors of weights, `R` replicates, `T` terms,
`Q` quantities: the judged tasks, then the families.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from ranker.config import ConfigError
from ranker.evaluation.intervals import (
    Estimate,
    draw_user_weights,
    percentile_estimate,
)
from ranker.evaluation.metrics import FloatArray, ratio
from ranker.schema import TaskSpec
from ranker.scoring.tuning.logged_lists import LoggedLists, discounts_of

FAMILIES = ("engagement", "satisfaction")
CHUNK_CELLS = 2**22  # some 32 MiB an array
UNDEFINED = "today's order puts no outcome at the top"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """The tasks whose labels are many enough to judge an order by.

    Attributes:
        tasks: [K].
        importance: [K], a task's share in its family's change; each family's sum to 1.
    """

    tasks: tuple[TaskSpec, ...]
    importance: FloatArray

    @property
    def quantities(self) -> tuple[str, ...]:
        """The names of the Q quantities."""
        return (*(task.name for task in self.tasks), *FAMILIES)

    def changes(self, values: FloatArray, today: FloatArray) -> FloatArray:
        """Relative changes [..., Q] of ``values`` [..., K] against those ``today`` [..., K]."""
        return self.with_families(ratio(values - today, np.abs(today)))

    def with_families(self, changes: FloatArray) -> FloatArray:
        """Turn negative tasks' changes [..., K] round and append the families': [..., Q]."""
        signs = np.array([1.0 if t.direction == "positive" else -1.0 for t in self.tasks])
        changes = signs * changes
        families = [
            np.where(mine, changes * self.importance, 0.0).sum(axis=-1)
            for mine in (
                np.array([t.family == family for t in self.tasks]) & (self.importance > 0)
                for family in FAMILIES
            )
        ]
        return np.concatenate([changes, np.stack(families, axis=-1)], axis=-1)


def family_importance(
    tasks: Sequence[TaskSpec], *, given: Mapping[str, float], today: Mapping[str, float]
) -> FloatArray:
    """Weights [K] that sum to 1 in every family: what is given, else today's score weights.

    Where nothing is given and today's are all 0, a family's tasks count alike.

    Raises:
        ConfigError: what is given leaves a family's tasks all without importance.
    """
    importance = np.array([given.get(task.name, today.get(task.name, 0.0)) for task in tasks])
    for family in FAMILIES:
        mine = np.array([task.family == family for task in tasks])
        if mine.any():
            total = importance[mine].sum()
            names = [task.name for task in tasks if task.family == family]
            if total == 0 and not given.keys().isdisjoint(names):
                raise ConfigError(
                    f"importance: the {family} tasks {names} all have 0, so nothing would count as "
                    f"{family}; give at least one more than 0"
                )
            importance[mine] = importance[mine] / total if total > 0 else 1 / mine.sum()
    return importance


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderEstimates:
    """One order's values by task, and its changes by quantity."""

    values: Mapping[str, Estimate]
    changes: Mapping[str, Estimate]


class OrderJudge:
    """Judges orders of some users' lists against the order that today's weights give."""

    def __init__(
        self,
        lists: LoggedLists,
        *,
        terms: FloatArray,
        labels: Mapping[str, FloatArray],
        judged: Judged,
        today: FloatArray,
        at: int,
    ) -> None:
        """Take the rows of ``lists`` out of the caller's columns.

        Args:
            lists: the lists to order.
            terms: [N', T] of all the caller's rows; a score is ``terms @ weights``.
            labels: by task, [N'] each, NaN where not observed.
            judged: which tasks count.
            today: [T], today's score weights.
            at: the last rank that counts.
        """
        self.lists, self.judged, self.at = lists, judged, at
        self._terms = np.ascontiguousarray(terms[lists.rows])  # [N, T]
        labels_by_task = [labels[task.name][lists.rows] for task in judged.tasks]
        self._observed = np.stack([~np.isnan(values) for values in labels_by_task])  # [K, N]
        self._labels = np.where(self._observed, np.stack(labels_by_task), 0.0)  # [K, N]
        # whatever the order, a list's discounts have the same sum
        todays = discounts_of(self.scores(today[np.newaxis]), lists, at=at)[0]
        self._discount_sums = np.add.reduceat(todays, lists.user_starts)  # [U]
        self._today_sums = self._user_sums(today[np.newaxis])

    def scores(self, weights: FloatArray) -> FloatArray:
        """Scores [C, N] by ``weights`` [C, T], of the rows as ``lists`` sorts them."""
        return np.asarray(weights @ self._terms.T)

    def values(self, weights: FloatArray) -> FloatArray:
        """The values [C, K] of the orders that ``weights`` [C, T] give."""
        return np.concatenate(
            [self._ratio_of(self._user_sums(w)) for w in self._chunks(weights, 0)]
        )

    def changes(self, weights: FloatArray) -> FloatArray:
        """The changes [C, Q] against today's order."""
        return self.judged.changes(self.values(weights), self._ratio_of(self._today_sums))

    def changes_with_lower_ends(
        self, weights: FloatArray, *, confidence: float
    ) -> tuple[FloatArray, FloatArray]:
        """The changes [C, Q], and the lower ends [C, Q] of their intervals.

        Thousands of candidates get the normal interval of the linearised change, which resampling
        users approaches and which costs no resampling: with a_u what user u adds to V(w) - V, the
        change moves by (a_u - V(w) / V(today) b_u) / |V(today)|, b_u being today's a_u.
        """
        z = NormalDist().inv_cdf((1 + confidence) / 2)
        today, todays_parts = self._linearised(self._today_sums)  # [1, K], [1, K, U]
        changes, lows = [], []
        for chunk in self._chunks(weights, 0):
            values, parts = self._linearised(self._user_sums(chunk))
            quotient = ratio(values, np.abs(today)) * np.sign(today)
            scale = np.where(today == 0, np.nan, np.abs(today))[..., np.newaxis]
            moved = (parts - quotient[..., np.newaxis] * todays_parts) / scale  # [C, K, U]
            moves = self.judged.with_families(np.moveaxis(moved, 1, -1))  # [C, U, Q]
            changes.append(self.judged.changes(values, today))
            lows.append(changes[-1] - z * np.sqrt((moves**2).sum(axis=1)))
        return np.concatenate(changes), np.concatenate(lows)

    def estimates(
        self, weights: FloatArray, *, confidence: float, draws: FloatArray
    ) -> list[OrderEstimates]:
        """Values and changes with intervals, for each of ``weights`` [C, T]."""
        names, num_tasks = self.judged.quantities, len(self.judged.tasks)
        found = []
        for chunk in self._chunks(weights, len(draws)):
            sums = self._user_sums(chunk)
            values, value_replicates = self._ratio_of(sums), _resampled(sums, draws)
            changes = self.judged.changes(values, self._ratio_of(self._today_sums))
            change_replicates = self._change_replicates(sums, draws)
            found += [
                OrderEstimates(
                    values=_estimates(
                        names[:num_tasks], values[c], value_replicates[c], confidence
                    ),
                    changes=_estimates(names, changes[c], change_replicates[c], confidence),
                )
                for c in range(len(chunk))
            ]
        return found

    def _chunks(self, weights: FloatArray, num_replicates: int) -> Iterator[FloatArray]:
        """As many vectors at a time as fit the memory."""
        num_rows, num_quantities = self._terms.shape[0], len(self.judged.quantities)
        cells = max(num_rows, 2 * num_quantities * max(self.lists.num_users, num_replicates), 1)
        size = max(1, CHUNK_CELLS // cells)
        for start in range(0, len(weights), size):
            yield weights[start : start + size]

    def _user_sums(self, weights: FloatArray) -> FloatArray:
        """Numerators and denominators of the values, by user: [2, C, K, U]."""
        discounts = discounts_of(self.scores(weights), self.lists, at=self.at)  # [C, N]
        starts = self.lists.user_starts
        shape = (2, len(weights), len(self.judged.tasks), self.lists.num_users)
        sums = np.empty(shape)
        for k, (labels, observed) in enumerate(zip(self._labels, self._observed, strict=True)):
            sums[0, :, k] = np.add.reduceat(discounts * labels, starts, axis=1)
            sums[1, :, k] = (
                self._discount_sums
                if observed.all()
                else np.add.reduceat(discounts * observed, starts, axis=1)
            )
        return sums

    def _ratio_of(self, sums: FloatArray) -> FloatArray:
        numerators, denominators = sums.sum(axis=-1)
        return ratio(numerators, denominators)

    def _linearised(self, sums: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values [C, K], and what each user adds to them [C, K, U]: these sum to 0."""
        values = self._ratio_of(sums)
        numerators, denominators = sums
        total = denominators.sum(axis=-1, keepdims=True)  # [C, K, 1]
        return values, ratio(numerators - values[..., np.newaxis] * denominators, total)

    def _change_replicates(self, sums: FloatArray, draws: FloatArray) -> FloatArray:
        """[C, R, Q]; both sides see the same draws."""
        return self.judged.changes(_resampled(sums, draws), _resampled(self._today_sums, draws))


def draw_users(lists: LoggedLists, *, num_replicates: int, rng: np.random.Generator) -> FloatArray:
    """[R, U]: how often each replicate draws each user."""
    blocks = draw_user_weights(
        num_users=lists.num_users,
        num_replicates=num_replicates,
        block_size=num_replicates,
        rng=rng,
    )
    return np.concatenate(list(blocks))


def _resampled(sums: FloatArray, draws: FloatArray) -> FloatArray:
    """Values [C, R, K] of the resampled users, from sums [2, C, K, U] and draws [R, U]."""
    flat = sums.reshape(-1, sums.shape[-1]) @ draws.T  # one product; stacked ones are far slower
    numerators, denominators = np.moveaxis(flat.reshape(*sums.shape[:-1], -1), -1, 2)  # [C, R, K]
    return ratio(numerators, denominators)


def _estimates(
    names: Sequence[str], points: FloatArray, replicates: FloatArray, confidence: float
) -> dict[str, Estimate]:
    """Percentile intervals of ``points`` [Q] from ``replicates`` [R, Q]."""
    return {
        name: percentile_estimate(
            value=float(points[q]),
            replicates=replicates[:, q],
            confidence=confidence,
            undefined=UNDEFINED,
        )
        for q, name in enumerate(names)
    }
