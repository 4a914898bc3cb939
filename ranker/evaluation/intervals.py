"""Percentile intervals from a bootstrap over users.

Rows of one user resemble each other, so whole users are drawn: a replicate draws as many users as
there are, with replacement, and a user drawn twice counts twice (the cluster bootstrap; Field and
Welsh, JRSS B 2007). All models see the same draws, hence differences are paired.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ranker.evaluation.metrics import FloatArray

MAX_UNDEFINED_SHARE = 0.05  # of replicates; beyond it what is left is no fair picture
MIN_USERS = 10  # resampling fewer clusters understates the spread badly


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A value with its interval; what is ``None`` is explained by ``reason``."""

    value: float | None
    ci_low: float | None
    ci_high: float | None
    reason: str = ""

    def to_json(self) -> dict[str, float | str | None]:
        """The form of metrics.json: value, ci_low, ci_high, and reason where there is one."""
        form: dict[str, float | str | None] = {
            "value": self.value,
            "ci_low": self.ci_low,
            "ci_high": self.ci_high,
        }
        return form | ({"reason": self.reason} if self.reason else {})

    def excludes_zero(self) -> bool:
        """Whether there is an interval and 0 is outside."""
        if self.ci_low is None or self.ci_high is None:
            return False
        return self.ci_low > 0 or self.ci_high < 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BootstrapSettings:
    """How intervals are made, and the rank at which NDCG is cut.

    Raises:
        ValueError: fewer than 2 replicates, a confidence outside (0, 1), or a rank below 1.
    """

    num_replicates: int = 1000
    confidence: float = 0.95
    ndcg_at: int = 5

    def __post_init__(self) -> None:
        if self.num_replicates < 2:
            raise ValueError(f"num_replicates must be at least 2, got {self.num_replicates}")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence must lie between 0 and 1, got {self.confidence}")
        if self.ndcg_at < 1:
            raise ValueError(f"ndcg_at must be at least 1, got {self.ndcg_at}; ranks are 1-based")


def draw_user_weights(
    *, num_users: int, num_replicates: int, block_size: int, rng: np.random.Generator
) -> Iterator[FloatArray]:
    """Yield blocks [<= block_size, U]: how often each replicate draws each user.

    The draws don't depend on ``block_size``, which bounds memory.
    """
    for start in range(0, num_replicates, block_size):
        block = np.empty((min(block_size, num_replicates - start), num_users))  # [R, U]
        for row in block:
            row[:] = np.bincount(rng.integers(num_users, size=num_users), minlength=num_users)
        yield block


def percentile_estimate(
    *, value: float, replicates: FloatArray, confidence: float, undefined: str
) -> Estimate:
    """Wrap ``value`` in the percentile interval of its ``replicates`` [R].

    Replicates that are not finite are left out. Without a finite value the estimate is empty and
    gives ``undefined`` as its reason; with no replicates at all (too few users), or more than 5 %
    of them undefined, the value stands without an interval.
    """
    if not np.isfinite(value):
        return Estimate(value=None, ci_low=None, ci_high=None, reason=undefined)
    if replicates.size == 0:
        reason = f"no interval: fewer than {MIN_USERS} users"
        return Estimate(value=float(value), ci_low=None, ci_high=None, reason=reason)
    finite = replicates[np.isfinite(replicates)]
    undefined_share = (replicates.size - finite.size) / replicates.size
    if undefined_share > MAX_UNDEFINED_SHARE:
        reason = f"no interval: undefined in {undefined_share:.0%} of the bootstrap replicates"
        return Estimate(value=float(value), ci_low=None, ci_high=None, reason=reason)
    tail = (1 - confidence) / 2
    low, high = np.quantile(finite, [tail, 1 - tail])
    return Estimate(value=float(value), ci_low=float(low), ci_high=float(high))
