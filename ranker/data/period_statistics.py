"""Owner features computed over a period that reaches into the log's future, like a month average.

A past-only feature, however good, can't foresee the sampling noise of later rows: even a feature
that equals an item's true click probability leaves the mean of its later clicks with at least the
noise of that many draws. So the log is cut in two halves by time, and an owner's later mean is
predicted from the feature and the owner's earlier mean. Residuals *smaller* than the noise within
owners allows mean that the feature was computed from the later rows themselves. The same holds for
the number of later impressions, whose noise is at least Poisson's.

Shapes: O owners, X columns of a regression.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

from ranker.data.leakage import Suspect

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MIN_OWNERS = 50
MIN_ROWS_IN_HALF = 10
LARGEST_SUSPECT_DISPERSION = 0.5
LARGEST_P_VALUE = 1e-6
IMPRESSIONS = "impressions"


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerMeans:
    """An outcome of each owner in both halves; every array has O elements.

    Attributes:
        early_rows, late_rows: rows with an observed label in the half.
        early_mean, late_mean: the label's mean there (any number where there is no row).
        late_variance: the unbiased variance of a label among the owner's late rows.
    """

    early_rows: FloatArray
    late_rows: FloatArray
    early_mean: FloatArray
    late_mean: FloatArray
    late_variance: FloatArray


class OwnerHalves:
    """Sums up labels by owner, before and from ``split_ms`` on; memory grows with the owners."""

    def __init__(self, tasks: Sequence[str], *, split_ms: int) -> None:
        self._split_ms = split_ms
        self._rows = np.zeros((2, 0))  # [2, O]
        self._sums = {task: np.zeros((2, 3, 0)) for task in tasks}  # [2, (rows, sum, squares), O]

    def add(
        self, owner: IntArray, time_ms: IntArray, label_by_task: Mapping[str, FloatArray]
    ) -> None:
        """Count rows of the owners with indices ``owner``; NaN labels are not observed."""
        size = max(self._rows.shape[-1], int(owner.max(initial=-1)) + 1)
        self._rows = _grown(self._rows, size)
        for half, chosen in enumerate((time_ms < self._split_ms, time_ms >= self._split_ms)):
            self._rows[half] += np.bincount(owner[chosen], minlength=size)
            for task, label in label_by_task.items():
                self._sums[task] = sums = _grown(self._sums[task], size)
                used = chosen & ~np.isnan(label)
                for power in range(3):
                    weights = label[used] ** power
                    sums[half, power] += np.bincount(owner[used], weights, minlength=size)

    @property
    def impressions(self) -> tuple[FloatArray, FloatArray]:
        """Rows of each owner in the early and in the late half."""
        return self._rows[0], self._rows[1]

    @property
    def mean_by_task(self) -> dict[str, OwnerMeans]:
        """Each task's means by owner."""
        return {task: _means(sums) for task, sums in self._sums.items()}


def find_period_statistics(
    halves: OwnerHalves, features: Mapping[str, FloatArray]
) -> list[Suspect]:
    """Numeric features of an owner that know later outcomes, each with the one it knows best.

    For owners with at least 10 rows in each half, the later mean is regressed (weighted by its
    rows) on the earlier mean, the row counts, and a cubic of the feature crossed with the counts:
    exact for a mean over all rows, also a smoothed one. ``strength`` is the residual variance over
    the variance that the rows' scatter within owners implies. Under "known before" its expectation
    is at least 1. Suspect: below 0.5, below half of what it is without the feature, and p < 1e-6 by
    chi-squared after Bonferroni, with the degrees of freedom cut to the effective number of owners
    (Kish) where few of them carry the noise.

    Limits: it needs 50 such owners; it misses a statistic of which the log's rows are less than
    about half (the platform's counts beside a log of few users), a statistic over labels not in the
    schema, and owners without early rows. Rows of an owner that repel each other (exactly one click
    a slate) have less noise than assumed; the comparison without the feature covers that.

    Args:
        halves: the sums of all rows.
        features: one value for each owner index; NaN = null.
    """
    means = halves.mean_by_task
    num_tests = len(features) * (len(means) + 1)
    suspects = []
    for feature, values in features.items():
        found = [
            _dispersion_of_mean(values[: len(m.late_rows)], m, against=task)
            for task, m in means.items()
        ]
        found.append(_dispersion_of_count(values[: len(halves.impressions[0])], halves))
        clear = [
            d
            for d in found
            if d is not None
            and d.ratio < LARGEST_SUSPECT_DISPERSION * min(1.0, d.ratio_without)
            and d.p_value * num_tests < LARGEST_P_VALUE
        ]
        if clear:
            suspects.append(_suspect(feature, min(clear, key=lambda d: d.ratio)))
    return suspects


def middle_ms(rows_by_hour: Mapping[int, int]) -> int:
    """The full hour (UTC ms) that halves the rows best; ``rows_by_hour`` counts from 1970 on.

    Raises:
        ValueError: no hour given.
    """
    if not rows_by_hour:
        raise ValueError("middle_ms: expected the rows of at least one hour, got none")
    hours = np.array(sorted(rows_by_hour))
    before = np.cumsum([0, *(rows_by_hour[hour] for hour in hours[:-1].tolist())])
    total = sum(rows_by_hour.values())
    return int(hours[np.argmin(np.abs(before - total / 2))]) * 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dispersion:
    against: str
    num_owners: int
    ratio: float
    ratio_without: float
    p_value: float


def _dispersion_of_mean(
    feature: FloatArray, means: OwnerMeans, *, against: str
) -> _Dispersion | None:
    enough = (means.early_rows >= MIN_ROWS_IN_HALF) & (means.late_rows >= MIN_ROWS_IN_HALF)
    used = enough & ~np.isnan(feature)
    late_rows, early_mean = means.late_rows[used], means.early_mean[used]  # [O]
    one = np.ones(len(late_rows))
    # All rows over late rows: mean_late = a · mean_all − (a − 1) · mean_early.
    a = (means.early_rows[used] + late_rows) / late_rows
    f = _polynomial(feature[used])
    return _dispersion(
        late=means.late_mean[used],
        noise=means.late_variance[used] / late_rows,
        weights=late_rows,
        without=np.stack([one, a, 1 / late_rows, early_mean, a * early_mean], axis=1),
        extra=np.stack([*f, a * f[0], f[0] / late_rows], axis=1),
        against=against,
    )


def _dispersion_of_count(feature: FloatArray, halves: OwnerHalves) -> _Dispersion | None:
    early, late = halves.impressions
    # Chosen by the past alone: a choice by the late rows would cut their noise.
    used = (early >= MIN_ROWS_IN_HALF) & ~np.isnan(feature)
    early, late, values = early[used], late[used], feature[used]
    f = _polynomial(values)
    undone_log = [np.expm1(values)] if len(values) and np.abs(values).max() < 30 else []
    return _dispersion(
        late=late,
        noise=late,
        weights=1 / early if len(early) else early,
        without=np.stack([np.ones(len(late)), early, np.sqrt(early)], axis=1),
        extra=np.stack([*f, *undone_log], axis=1),
        against=IMPRESSIONS,
    )


def _dispersion(
    *,
    late: FloatArray,
    noise: FloatArray,
    weights: FloatArray,
    without: FloatArray,
    extra: FloatArray,
    against: str,
) -> _Dispersion | None:
    """Residual variance over noise variance, with and without the feature's columns ``extra``."""
    num_owners = len(late)
    expected = weights * noise  # [O]
    if num_owners < MIN_OWNERS or expected.sum() == 0 or np.ptp(extra[:, 0]) == 0:
        return None
    ratio_without, _ = _residual_ratio(without, late, weights, expected)
    both = np.concatenate([without, extra], axis=1)  # [O, X]
    ratio, rank = _residual_ratio(both, late, weights, expected)
    effective = expected.sum() ** 2 / (expected**2).sum()
    freedom = effective * (num_owners - rank) / num_owners
    return _Dispersion(
        against=against,
        num_owners=num_owners,
        ratio=ratio,
        ratio_without=ratio_without,
        p_value=float(chi2.cdf(ratio * freedom, freedom)),
    )


def _residual_ratio(
    columns: FloatArray, late: FloatArray, weights: FloatArray, expected: FloatArray
) -> tuple[float, int]:
    root = np.sqrt(weights)
    scaled = columns / np.maximum(np.abs(columns).max(axis=0), 1e-300)  # for the rank's sake
    solution, _, rank, _ = np.linalg.lstsq(scaled * root[:, None], late * root, rcond=None)
    residual = (late - scaled @ solution) * root
    return float((residual @ residual) / (len(late) - rank) / expected.mean()), int(rank)


def _polynomial(values: FloatArray) -> list[FloatArray]:
    """Powers 1 to 3 of the standardised values; squares and cubes of outliers are cut."""
    spread = values.std() if len(values) else 0.0
    z = (values - values.mean()) / spread if spread > 0 else np.zeros(len(values))
    cut = np.clip(z, -4, 4)
    return [z, cut**2, cut**3]


def _means(sums: FloatArray) -> OwnerMeans:
    rows, total, squares = sums[:, 0], sums[:, 1], sums[:, 2]  # each [2, O]
    mean = total / np.maximum(rows, 1)
    scatter = squares[1] - rows[1] * mean[1] ** 2
    # A constant label leaves nothing but the rounding of its squares.
    scatter = np.where(scatter > 1e-9 * squares[1], scatter, 0.0)
    return OwnerMeans(
        early_rows=rows[0],
        late_rows=rows[1],
        early_mean=mean[0],
        late_mean=mean[1],
        late_variance=scatter / np.maximum(rows[1] - 1, 1),
    )


def _grown(array: FloatArray, size: int) -> FloatArray:
    """``array`` with zeros appended to its last axis up to ``size``."""
    missing = size - array.shape[-1]
    if missing <= 0:
        return array
    return np.concatenate([array, np.zeros((*array.shape[:-1], missing))], axis=-1)


def _suspect(feature: str, found: _Dispersion) -> Suspect:
    what = "count of later impressions" if found.against == IMPRESSIONS else "later mean"
    of = "" if found.against == IMPRESSIONS else f" of {found.against!r}"
    return Suspect(
        feature=feature,
        reason="period statistic",
        against=found.against,
        compared=found.num_owners,
        measure="residual variance / sampling variance",
        strength=found.ratio,
        finding=(
            f"it predicts the {what}{of} of {found.num_owners:,} owners more closely than chance "
            f"allows (residual variance {found.ratio:.2f} of the sampling variance, at least 1 "
            f"expected, p < {LARGEST_P_VALUE:g}): it was computed from the log's later rows; "
            "compute it from the time before each impression, or leave it out"
        ),
    )
