"""The same shards on Ray: one task a shard, the same bytes, whoever computes them.

All nodes must see bundle, state, candidates and output under the same paths. A task that loses its
worker is run again by Ray; a driver that dies leaves finished parts, and ``--resume`` goes on.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ranker.config import ConfigError
from ranker.data.parquet import DataError
from ranker.scoring.job.shard_worker import ScoreJob, ShardDone, ShardWorker

MAX_RETRIES = 3  # of a shard whose worker was lost
CONNECT_S = 10.0
STORE_BYTES = 128 * 2**20  # of a cluster of our own: only plans and counts pass through it


class WorkersLostError(RuntimeError):
    """Workers died again and again on one shard; what other shards finished is kept."""


def require_ray() -> None:
    """Raise `ConfigError` with the remedy unless Ray is installed."""
    if importlib.util.find_spec("ray") is None:
        raise ConfigError("--engine ray needs Ray: pip install -e '.[ray]' (or ray>=2.40)")


@dataclass(frozen=True, slots=True, kw_only=True)
class RayEngine:
    """Scores shards on a Ray cluster.

    Attributes:
        workers: shards at a time; None for as many as the cluster has CPUs.
        address: of a cluster to join; None starts one on this machine and ends it with the job.
    """

    workers: int | None
    address: str | None

    def __call__(self, worker: ShardWorker, wanted: Sequence[int]) -> Iterator[ShardDone]:
        """Score shards; they come in the order in which they are finished.

        Raises:
            WorkersLostError: a shard cost its worker more than `MAX_RETRIES` times.
            ConfigError: the cluster can't be joined.
        """
        ray = importlib.import_module("ray")  # an extra: whoever checks types may lack it
        with _cluster(ray, self):
            at_a_time = self.workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
            yield from _score(ray, worker.job, wanted, at_a_time=at_a_time)


def _score(
    ray: Any, job: ScoreJob, wanted: Sequence[int], *, at_a_time: int
) -> Iterator[ShardDone]:
    shared = ray.put(job)
    task = ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(_score_shard)
    waiting = list(reversed(wanted))
    running: dict[Any, int] = {}
    while waiting or running:
        while waiting and len(running) < at_a_time:
            index = waiting.pop()
            running[task.remote(shared, index)] = index
        (ready,), _ = ray.wait(list(running), num_returns=1)
        index = running.pop(ready)
        try:
            done = ray.get(ready)
        except (
            ray.exceptions.WorkerCrashedError,
            ray.exceptions.NodeDiedError,
            ray.exceptions.OutOfMemoryError,
        ) as error:
            raise _lost(index, error) from None
        if isinstance(done, _Failure):
            raise done.error
        yield done


@dataclass(frozen=True, slots=True)
class _Failure:
    """What a user or the machine did wrong: not for Ray to wrap, nor to try again."""

    error: DataError | ConfigError | OSError


_workers: list[ShardWorker] = []  # of this process: none yet, or one


def _score_shard(job: ScoreJob, index: int) -> ShardDone | _Failure:
    """The task: loads the model once a process, however many shards it gets."""
    try:
        if not _workers or _workers[0].job != job:
            _workers[:] = [ShardWorker.load(job)]
        return _workers[0].work(index)
    except (DataError, ConfigError, OSError) as error:
        return _Failure(error)


def _lost(index: int, error: Exception) -> WorkersLostError:
    return WorkersLostError(
        f"shard {index} lost its worker {MAX_RETRIES + 1} times ({type(error).__name__}): its "
        "machine may lack memory (fewer --workers, a smaller shard_rows); finished shards are "
        "kept: go on with --resume"
    )


def _check_reachable(address: str) -> None:
    """Raise `ConfigError` at once where nobody listens: Ray would try for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or "/" in host:
        return  # an address of another kind: Ray knows what to do with it
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(f"--ray-address {address}: nobody answers there ({error})") from None


@contextlib.contextmanager
def _cluster(ray: Any, engine: RayEngine) -> Iterator[None]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if engine.address is None:
        options |= {
            "address": "local",
            "include_dashboard": False,
            "num_cpus": engine.workers or os.cpu_count() or 1,
            "object_store_memory": STORE_BYTES,
        }
    else:
        _check_reachable(engine.address)
        options["address"] = engine.address
    try:
        ray.init(**options)
    except (ConnectionError, ValueError) as error:
        raise ConfigError(f"--ray-address {engine.address}: can't be joined: {error}") from None
    try:
        yield
    finally:
        ray.shutdown()
