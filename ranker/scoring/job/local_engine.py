"""Shards one after the other in this process: the next is read and the last written meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from ranker.scoring.job.shard_reader import ShardRows
from ranker.scoring.job.shard_worker import ShardDone, ShardWorker
from ranker.scoring.scorer import ScoredShard
from ranker.scoring.stage_clock import StageClock


def score_locally(worker: ShardWorker, wanted: Sequence[int]) -> Iterator[ShardDone]:
    """Score shards, ascending; at most three are in memory at a time."""
    shards = worker.read(wanted)

    def read_next() -> tuple[ShardRows | None, StageClock]:
        clock = StageClock()
        with clock.running():
            return next(shards, None), clock

    def write(shard: ShardRows, scored: ScoredShard, clock: StageClock) -> ShardDone:
        with clock.running():
            part = worker.write(shard.index, scored)
        return ShardDone(part=part, seconds=clock.seconds)

    with (
        _torch_threads(worker.job.config.threads),
        ThreadPoolExecutor(1) as reader,
        ThreadPoolExecutor(1) as writer,
    ):
        ahead = reader.submit(read_next)
        written: Future[ShardDone] | None = None
        while True:
            shard, clock = ahead.result()
            if shard is None:
                break
            ahead = reader.submit(read_next)
            with clock.running():
                scored = worker.score(shard)
            if written is not None:
                yield written.result()
            written = writer.submit(write, shard, scored, clock)
        if written is not None:
            yield written.result()


@contextlib.contextmanager
def _torch_threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
