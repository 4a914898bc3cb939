"""Moments: all that means, ratios and their covariates need of a set of users, in one pass.

Moments of disjoint sets of users add up, so slices, arms and files are each read once.

Shapes: ``N`` users, ``K`` columns, ``G`` groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ranker.experiment.effect import FloatArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moments:
    """First and second moments of columns with one entry a user.

    Attributes:
        columns: their names, K of them.
        means: [K]; NaN without users.
        scatter: sums over users of products of deviations from the means, [K, K].
    """

    columns: tuple[str, ...]
    num_users: int
    means: FloatArray
    scatter: FloatArray

    @property
    def covariances(self) -> FloatArray:
        """Unbiased (divided by N − 1), [K, K]; NaN with fewer than two users."""
        if self.num_users < 2:
            return np.full_like(self.scatter, np.nan)
        return self.scatter / (self.num_users - 1)

    def mean(self, column: str) -> float:
        """Mean of ``column`` over users."""
        return float(self.means[self.index(column)])

    def index(self, column: str) -> int:
        """Where ``column`` stands.

        Raises:
            ValueError: no such column.
        """
        if column not in self.columns:
            raise ValueError(f"moments: expected one of {list(self.columns)}, got {column!r}")
        return self.columns.index(column)

    def __add__(self, other: Moments) -> Moments:
        """Moments of both sets of users together (Chan, Golub & LeVeque 1983).

        Raises:
            ValueError: other columns.
        """
        if self.columns != other.columns:
            raise ValueError(
                f"moments: can't add columns {list(other.columns)} to {list(self.columns)}"
            )
        if self.num_users == 0 or other.num_users == 0:
            return other if self.num_users == 0 else self
        num_users = self.num_users + other.num_users
        gap = other.means - self.means  # [K]
        between = np.outer(gap, gap) * (self.num_users * other.num_users / num_users)
        return Moments(
            columns=self.columns,
            num_users=num_users,
            means=self.means + gap * (other.num_users / num_users),
            scatter=self.scatter + other.scatter + between,
        )


def moments(columns: Mapping[str, FloatArray]) -> Moments:
    """Moments of ``columns``, name → one finite entry a user, [N].

    Raises:
        ValueError: no columns, different lengths, or an entry that is missing or infinite.
    """
    num_users = _check(columns)
    names = tuple(columns)
    if num_users == 0:
        return _empty(names)
    # Anchored at one user, a column that doesn't vary has a scatter of exactly 0.
    anchors = np.array([columns[name][0] for name in names])  # [K]
    shifted = np.stack([columns[name] for name in names]) - anchors[:, None]  # [K, N]
    means = shifted.mean(axis=1)
    shifted -= means[:, None]
    return Moments(
        columns=names, num_users=num_users, means=anchors + means, scatter=shifted @ shifted.T
    )


def moments_by_group(
    columns: Mapping[str, FloatArray], *, group_codes: NDArray[np.int64], num_groups: int
) -> tuple[Moments, ...]:
    """Moments of each group of users, G of them: arms, slices, or slices of arms.

    Args:
        columns: as in `moments`.
        group_codes: each user's group, from 0 to ``num_groups`` − 1, or −1 for none, [N].
        num_groups: G.

    Raises:
        ValueError: as `moments`, or a code out of range.
    """
    num_users = _check(columns)
    if len(group_codes) != num_users:
        raise ValueError(f"moments: expected {num_users} group codes, got {len(group_codes)}")
    if num_users and not (group_codes.min() >= -1 and group_codes.max() < num_groups):
        raise ValueError(
            f"moments: group codes must be from -1 to {num_groups - 1}, got "
            f"{group_codes.min()} to {group_codes.max()}"
        )
    names = tuple(columns)
    member = group_codes >= 0
    codes = group_codes[member]
    counts = np.bincount(codes, minlength=num_groups)  # [G]
    divisors = np.maximum(counts, 1)
    means = np.empty((num_groups, len(names)))
    scatter = np.empty((num_groups, len(names), len(names)))
    centred: list[FloatArray] = []
    for k, name in enumerate(names):
        values = columns[name][member]
        anchors = np.full(num_groups, np.nan)
        anchors[codes] = values  # any one member, for the reason given in `moments`
        shifted = values - anchors[codes]
        mean = np.bincount(codes, weights=shifted, minlength=num_groups) / divisors
        means[:, k] = anchors + mean
        centred.append(shifted - mean[codes])
        for j, other in enumerate(centred):
            products = np.bincount(codes, weights=other * centred[k], minlength=num_groups)
            scatter[:, j, k] = scatter[:, k, j] = products
    return tuple(
        Moments(columns=names, num_users=int(counts[g]), means=means[g], scatter=scatter[g])
        for g in range(num_groups)
    )


def require_finite(values: FloatArray, *, name: str) -> None:
    """Raise a ValueError if an entry of ``values`` is missing or infinite."""
    bad = ~np.isfinite(values)
    if bad.any():
        place = int(np.argmax(bad))
        raise ValueError(
            f"{name}: expected finite values, got {values[place]} at entry {place} "
            f"({np.count_nonzero(bad)} such); leave users without a value out, and mend infinities"
        )


def _check(columns: Mapping[str, FloatArray]) -> int:
    if not columns:
        raise ValueError("moments: expected at least one column, got none")
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"moments: expected columns of one length, got {lengths}")
    for name, values in columns.items():
        require_finite(values, name=name)
    return next(iter(lengths.values()))


def _empty(names: tuple[str, ...]) -> Moments:
    size = len(names)
    return Moments(
        columns=names,
        num_users=0,
        means=np.full(size, np.nan),
        scatter=np.zeros((size, size)),
    )
