"""What a shard counts, and what the counts of all shards say together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ranker.scoring.job.score_sketch import ScoreSketch
from ranker.scoring.slates.exposure import SlateCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardCounts:
    """Counts that add up over shards; see `ScoreSummary`."""

    requests: int
    candidates: int
    slates: SlateCounts
    unknown_or_null_ids: dict[str, int]
    rows_without_owner: dict[str, int]
    scores: ScoreSketch

    def to_json(self) -> dict[str, Any]:
        """As `from_json` reads it."""
        return {
            "requests": self.requests,
            "candidates": self.candidates,
            "slates": asdict(self.slates),
            "unknown_or_null_ids": self.unknown_or_null_ids,
            "rows_without_owner": self.rows_without_owner,
            "scores": self.scores.to_json(),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ShardCounts:
        """What `to_json` gave."""
        parsed = {
            "slates": SlateCounts(**values["slates"]),
            "scores": ScoreSketch.from_json(values["scores"]),
        }
        return cls(**{**values, **parsed})


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreSummary:
    """What was scored; a function of the inputs.

    Attributes:
        unknown_or_null_ids: feature -> candidates whose id the model has no embedding for: new
            since training, missing, or of a user or item without a row in its table.
        rows_without_owner: user or item -> candidates without a row in its table.
        slates: what constraints left; see `ranker.scoring.slates.exposure.SlateCounts`.
        scores: minimum, quartiles (within 0.4 %), maximum and mean of all candidates' scores.
    """

    requests: int
    candidates: int
    shown: int
    slates: SlateCounts
    unknown_or_null_ids: dict[str, int]
    rows_without_owner: dict[str, int]
    scores: dict[str, float] | None

    def to_json(self) -> dict[str, Any]:
        """As a dictionary."""
        return asdict(self)


def add_up(several: Iterable[ShardCounts]) -> ScoreSummary:
    """The summary of all shards, given in the plan's order."""
    requests = candidates = 0
    slates = SlateCounts(without_value={})
    unknown: Counter[str] = Counter()
    without_owner: Counter[str] = Counter()
    scores = ScoreSketch()
    for counts in several:
        requests += counts.requests
        candidates += counts.candidates
        slates += counts.slates
        unknown.update(counts.unknown_or_null_ids)
        without_owner.update(counts.rows_without_owner)
        scores.add(counts.scores)
    return ScoreSummary(
        requests=requests,
        candidates=candidates,
        shown=slates.shown,
        slates=slates,
        unknown_or_null_ids={name: n for name, n in sorted(unknown.items()) if n},
        rows_without_owner={name: n for name, n in without_owner.items() if n},
        scores=scores.summary(),
    )
