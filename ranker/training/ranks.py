"""Several processes train one model, each on its part of every batch.

Rank 0 is the process that called `ranker.training.fit.train`; it alone writes files. All ranks hold
the same weights after every step: gradients are added up over ranks, and each batch's loss counts
its observed labels over the whole batch. So without dropout and batch normalisation the result is
that of one process but for rounding. Lightning's own strategy would wrap the model and allow one
backward pass a step only, which micro-batches need more of.

Shapes: ``n`` rows with a gradient, ``W`` width of the table.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.context import SpawnProcess
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, multiprocessing
from torch._C._distributed_c10d import FileStore, Store  # torch.distributed hides them from types

from ranker.data.batch import Batch
from ranker.data.loader import slice_batch
from ranker.models.ranking_model import RankingModel
from ranker.training.sparse_rows import sum_by_row

_TIMEOUT = datetime.timedelta(hours=2)  # rank 0 predicts whole windows while the others wait
_POLL_S = 0.05


class RankDiedError(RuntimeError):
    """One of several training processes has ended before its work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """This process's place among ``size`` processes; ranks count from 0."""

    rank: int = 0
    size: int = 1

    def part(self, batch: Batch) -> Batch:
        """This rank's rows of a batch: every row is some rank's, and one rank's alone."""
        if self.size == 1:
            return batch
        start = batch.num_rows * self.rank // self.size
        stop = batch.num_rows * (self.rank + 1) // self.size
        return slice_batch(batch, start, stop)

    def shared(self, value: str | None) -> str | None:
        """Rank 0's ``value``, on every rank."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values)
        return values[0]

    @torch.no_grad()
    def exchange(self, model: RankingModel, loss: Tensor) -> Tensor:
        """Add up gradients, average buffers over the ranks; returns the sum of ``loss``."""
        if self.size == 1:
            return loss
        table = None if model.embedder.table is None else model.embedder.table.weight
        dense = [parameter for parameter in model.parameters() if parameter is not table]
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in dense]
        summed = _sum_over_ranks([*gradients, loss])
        for parameter, gradient in zip(dense, summed, strict=False):
            parameter.grad = gradient
        if table is not None:
            table.grad = _gather_sparse(table, self.size)
        for dtype in (torch.float32, torch.float64):
            buffers = [buffer for buffer in model.buffers() if buffer.dtype == dtype]
            if buffers:
                for buffer, total in zip(buffers, _sum_over_ranks(buffers), strict=True):
                    buffer.copy_(total / self.size)
        return summed[-1]


ALONE = Ranks()


def _sum_over_ranks(tensors: list[Tensor]) -> list[Tensor]:
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    parts = torch.split_with_sizes(flat, [tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def _gather_sparse(table: Tensor, size: int) -> Tensor:
    """The sparse gradients of all ranks, one after another."""
    if table.grad is None:
        rows = torch.empty(0, dtype=torch.int64, device=table.device)
        values = table.new_empty(0, table.shape[1])
    else:
        rows, values = sum_by_row(table.grad)  # [n], [n, W]
    counts = torch.cat(_gather(torch.tensor([len(rows)], device=table.device), size))
    longest = int(counts.max())
    padded_rows = rows.new_zeros(longest)
    padded_rows[: len(rows)] = rows
    padded_values = values.new_zeros(longest, table.shape[1])
    padded_values[: len(rows)] = values
    all_rows = torch.cat(_gather(padded_rows, size))
    all_values = torch.cat(_gather(padded_values, size))
    real = (torch.arange(longest, device=table.device) < counts[:, None]).flatten()
    return torch.sparse_coo_tensor(
        all_rows[real][None], all_values[real], table.shape, check_invariants=False
    )


def _gather(tensor: Tensor, size: int) -> list[Tensor]:
    """The tensor of each rank, all of one shape."""
    parts = [torch.empty_like(tensor) for _ in range(size)]
    dist.all_gather(parts, tensor)
    return parts


@contextlib.contextmanager
def started_ranks(
    size: int, follow: Callable[[Ranks], None], *, backend: str, rendezvous: Path
) -> Iterator[Ranks]:
    """Start ranks 1 .. size - 1, each running ``follow``, and be rank 0 inside.

    Args:
        size: number of processes; 1 starts none.
        follow: picklable; does what rank 0 does inside, but for writing.
        backend: of `torch.distributed`: ``gloo`` for processors, ``nccl`` for GPUs.
        rendezvous: a file for the ranks to find each other; what is there is deleted.

    Raises:
        RankDiedError: another rank has died while starting.
        RuntimeError: it has died at work.
    """
    if size == 1:
        yield ALONE
        return
    rendezvous.unlink(missing_ok=True)  # a killed run leaves it, and ranks would meet its ghosts
    context = multiprocessing.get_context("spawn")
    path = str(rendezvous.resolve())
    followers = [
        context.Process(target=_follow, args=(follow, rank, size, backend, path), daemon=True)
        for rank in range(1, size)
    ]
    try:
        for process in followers:
            process.start()
        store = FileStore(path, size)
        _wait_until_here(followers, store)
        _join_group(backend, store, rank=0, size=size)
        yield Ranks(rank=0, size=size)
        for process in followers:
            process.join()
            _require_alive(process)
    finally:
        for process in followers:
            if process.is_alive():
                process.terminate()
        if dist.is_initialized():
            dist.destroy_process_group()
        rendezvous.unlink(missing_ok=True)


def _wait_until_here(followers: Sequence[SpawnProcess], store: Store) -> None:
    """Return when every other rank has its imports behind it and is about to join.

    Joining itself waits for hours, without looking whether the others live.
    """
    missing = {_here(rank): process for rank, process in enumerate(followers, start=1)}
    while missing:
        for key, process in list(missing.items()):
            if store.check([key]):
                del missing[key]
            else:
                _require_alive(process)
        time.sleep(_POLL_S)


def _require_alive(process: SpawnProcess) -> None:
    if process.exitcode:
        raise RankDiedError(
            f"a training process (pid {process.pid}) ended with exit code {process.exitcode}: "
            "killed, or out of memory; what was saved is intact, --resume goes on from there"
        )


def _here(rank: int) -> str:
    return f"rank {rank} is here"


def _join_group(backend: str, store: Store, *, rank: int, size: int) -> None:
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_TIMEOUT)


def end_with_parent() -> None:
    """Let this process die with the one that started it, and not wait for it for hours."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _follow(follow: Callable[[Ranks], None], rank: int, size: int, backend: str, path: str) -> None:
    end_with_parent()
    with contextlib.suppress(KeyboardInterrupt):  # rank 0 says what there is to say
        store = FileStore(path, size)
        store.set(_here(rank), "")
        _join_group(backend, store, rank=rank, size=size)
        try:
            follow(Ranks(rank=rank, size=size))
        finally:
            dist.destroy_process_group()
