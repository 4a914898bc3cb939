"""The distribution of scores in little memory, the same in whichever order parts are added.

A bucket is what the sign, the exponent and the first 7 bits of the mantissa of a float64 say, so a
quantile is off by less than 1/256 of itself (as in DDSketch, Masson et al., VLDB 2019, with
buckets that need no logarithm). Adding counts of buckets is exact: parts may come in any order.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Float64Array = npt.NDArray[np.float64]

DROPPED_BITS = 45  # of 52: 7 bits of the mantissa are left
SIGN = np.int64(-(2**63))


@dataclass(slots=True)
class ScoreSketch:
    """Counts by bucket; minimum and maximum are exact, sums are kept part by part."""

    count_by_bucket: Counter[int] = field(default_factory=Counter)
    low: float = math.inf
    high: float = -math.inf
    sums: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, scores: Float64Array) -> ScoreSketch:
        """The sketch of finite scores [N]."""
        if not len(scores):
            return cls()
        buckets, counts = np.unique(_ordered(scores) >> DROPPED_BITS, return_counts=True)
        return cls(
            count_by_bucket=Counter(dict(zip(buckets.tolist(), counts.tolist(), strict=True))),
            low=float(scores.min()),
            high=float(scores.max()),
            sums=[math.fsum(scores)],
        )

    def add(self, other: ScoreSketch) -> None:
        """Take over another part's scores."""
        self.count_by_bucket.update(other.count_by_bucket)
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.sums += other.sums

    def summary(self) -> dict[str, float] | None:
        """Minimum, quartiles, maximum and mean; None without scores."""
        num_scores = sum(self.count_by_bucket.values())
        if num_scores == 0:
            return None
        q25, median, q75 = self._quantiles((0.25, 0.5, 0.75))
        return {
            "min": self.low,
            "q25": q25,
            "median": median,
            "q75": q75,
            "max": self.high,
            "mean": math.fsum(self.sums) / num_scores,
        }

    def _quantiles(self, shares: Sequence[float]) -> list[float]:
        """The middle of the bucket that holds the ceil(share n)-th smallest score."""
        buckets = sorted(self.count_by_bucket)
        reached = np.cumsum([self.count_by_bucket[bucket] for bucket in buckets])
        wanted = np.maximum(np.ceil(np.asarray(shares) * reached[-1]), 1)
        places = np.searchsorted(reached, wanted)
        middles = (np.asarray(buckets, dtype=np.int64) << DROPPED_BITS) + 2 ** (DROPPED_BITS - 1)
        values = _unordered(middles)[places]
        return [float(value) for value in np.clip(values, self.low, self.high)]

    def to_json(self) -> dict[str, Any]:
        """As `from_json` reads it."""
        if not self.count_by_bucket:
            return {"buckets": {}}
        buckets = {
            str(bucket): self.count_by_bucket[bucket] for bucket in sorted(self.count_by_bucket)
        }
        return {"buckets": buckets, "low": self.low, "high": self.high, "sums": self.sums}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ScoreSketch:
        """What `to_json` gave."""
        if not values["buckets"]:
            return cls()
        return cls(
            count_by_bucket=Counter({int(b): int(n) for b, n in values["buckets"].items()}),
            low=float(values["low"]),
            high=float(values["high"]),
            sums=[float(value) for value in values["sums"]],
        )


def _ordered(scores: Float64Array) -> npt.NDArray[np.int64]:
    """Integers in the order of the floats; 0.0 and -0.0 are one."""
    bits = (scores + 0.0).view(np.int64)
    return np.where(bits < 0, SIGN - bits, bits)


def _unordered(integers: npt.NDArray[np.int64]) -> Float64Array:
    return np.where(integers < 0, SIGN - integers, integers).view(np.float64)
