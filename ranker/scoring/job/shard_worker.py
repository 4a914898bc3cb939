"""What every process of a scoring job does with a shard: read, check, score, write."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ranker.bundle import ModelBundle, load_bundle
from ranker.data.features import FeatureSource
from ranker.data.state import load_state
from ranker.score_weights import ScoreWeights
from ranker.scoring.job.partial_folder import FinishedPart, write_part
from ranker.scoring.job.shard_checks import check_shard
from ranker.scoring.job.shard_plan import ShardPlan
from ranker.scoring.job.shard_reader import ShardRows, read_shards
from ranker.scoring.runtimes.predictor import build_predictor
from ranker.scoring.score_config import ScoreConfig
from ranker.scoring.scorer import ScoredShard, ShardScorer
from ranker.scoring.slates.slate_candidates import columns_read
from ranker.scoring.stage_clock import StageClock, stage


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreJob:
    """All that a process needs to score any shard; small, and the same in all processes.

    Attributes:
        bundle, state, candidates: where they are, for every process alike.
        folder: where parts are written.
        travelling: the candidates' columns that slates get.
        config: with the number of threads that the plan was made for.
    """

    bundle: Path
    state: Path
    candidates: Path
    folder: Path
    score_weights: ScoreWeights
    config: ScoreConfig
    travelling: tuple[str, ...]
    plan: ShardPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardDone:
    """A finished part, and the seconds it took by stage."""

    part: FinishedPart
    seconds: dict[str, float]


class ShardWorker:
    """A process's own model and state, loaded once."""

    def __init__(self, job: ScoreJob, bundle: ModelBundle, source: FeatureSource) -> None:
        """Make the predictor.

        Raises:
            DataError: the state does not belong to the bundle.
        """
        assert job.config.runtime != "auto"  # the plan has decided
        self.job, self.source = job, source
        self.scorer = ShardScorer(
            bundle=bundle,
            source=source,
            predictor=build_predictor(bundle, source, runtime=job.config.runtime),
            score_weights=job.score_weights,
            config=job.config,
            travelling=job.travelling,
        )

    @classmethod
    def load(cls, job: ScoreJob) -> ShardWorker:
        """Load bundle and state, and keep to the plan's number of threads from now on."""
        torch.set_num_threads(job.config.threads)
        return cls(job, load_bundle(job.bundle), load_state(job.state))

    def read(self, wanted: Sequence[int]) -> Iterator[ShardRows]:
        """Shards, ascending, whose lists can be ranked (`read_shards`, `check_shard`)."""
        job, schema = self.job, self.source.schema
        looked_at = columns_read(job.config.slate, schema)
        needed = tuple(dict.fromkeys([*job.travelling, *looked_at]))
        for shard in read_shards(
            job.candidates, job.plan, schema, travelling=needed, wanted=wanted
        ):
            with stage("read"):
                check_shard(shard, self.source)
            yield shard

    def score(self, shard: ShardRows) -> ScoredShard:
        """See `ShardScorer.score`."""
        return self.scorer.score(shard.raw, shard.canonical)

    def write(self, index: int, scored: ScoredShard) -> FinishedPart:
        """See `write_part`."""
        with stage("write"):
            return write_part(self.job.folder, index, scored.table, scored.counts)

    def work(self, index: int) -> ShardDone:
        """One shard from beginning to end."""
        clock = StageClock()
        with clock.running():
            (shard,) = self.read([index])
            part = self.write(index, self.score(shard))
        return ShardDone(part=part, seconds=clock.seconds)
