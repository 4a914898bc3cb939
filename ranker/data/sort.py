"""A log in any order becomes a stream in time order, without exact duplicates, in bounded memory.

Real logs arrive unsorted, if mostly not by much. What can't be passed on at once is sorted in runs
that fit in memory, spilled and merged.
Rows are ordered by (time, user, item, content), so the result does not depend on the files' order,
and rows with equal time stamps are never split between two tables of the output.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ranker.data.parallel import map_columns

SORT_KEY = ["time_ms", "user", "item", "row_hash"]
BATCH_ROWS = 65_536
ANY_TIME_MS = np.iinfo(np.int64).min


@dataclass(slots=True)
class DuplicateCount:
    """How many exact duplicate rows were dropped."""

    rows: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """Rows of a log, and how far back later arrivals may reach: none holds an older row."""

    rows: pa.Table
    oldest_to_come_ms: int = ANY_TIME_MS


def sort_by_time(
    arrivals: Iterable[Arrival], *, spill: Path, run_rows: int, duplicates: DuplicateCount
) -> Iterator[pa.Table]:
    """Yield all rows in time order; exact duplicates (same time, user, item, hash) are dropped.

    Rows are passed on as soon as nothing older can come: a log that is nearly in order streams
    through. Otherwise everything is read first.

    Args:
        arrivals: canonical log tables, in any order.
        spill: an existing folder for sorted runs; used only when ``run_rows`` rows have to wait.
        run_rows: how many rows are sorted in memory at a time.
        duplicates: receives the count of dropped rows.
    """
    runs: list[_Run] = []
    waiting: list[pa.Table] = []
    for arrival in arrivals:
        waiting.append(arrival.rows)
        if not runs:
            ready, rest = _split(waiting, arrival.oldest_to_come_ms)
            if sum(table.num_rows for table in ready) >= BATCH_ROWS:
                yield _sorted(ready, duplicates)
                waiting = rest
        if sum(table.num_rows for table in waiting) >= run_rows:
            runs.append(_spill(waiting, spill / f"run-{len(runs):05d}.arrow", duplicates))
            waiting = []
    if not runs:
        if any(table.num_rows for table in waiting):
            yield _sorted(waiting, duplicates)
        return
    if any(table.num_rows for table in waiting):
        runs.append(_spill(waiting, spill / f"run-{len(runs):05d}.arrow", duplicates))
    del waiting
    chains = _chain(runs)
    # However many chains there are, their open batches together stay about one run's size.
    batch_rows = min(BATCH_ROWS, max(1, run_rows // len(chains)))
    for ready in _merge([_read_runs(chain, batch_rows) for chain in chains]):
        yield _sorted(ready, duplicates)


def _split(tables: list[pa.Table], time_ms: int) -> tuple[list[pa.Table], list[pa.Table]]:
    """The rows older than ``time_ms``, and the others."""
    older, others = [], []
    for table in tables:
        is_older = table.column("time_ms").to_numpy() < time_ms
        if is_older.all():
            older.append(table)
        elif not is_older.any():
            others.append(table)
        else:
            older.append(table.filter(pa.array(is_older)))
            others.append(table.filter(pa.array(~is_older)))
    return older, others


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """A sorted file and the times of its first and last row."""

    path: Path
    first_ms: int
    last_ms: int


def _sorted(tables: list[pa.Table], duplicates: DuplicateCount) -> pa.Table:
    """The rows in order, without exact duplicates."""
    table = pa.concat_tables(tables).combine_chunks()
    time_ms = table.column("time_ms").to_numpy()
    # Real logs are nearly sorted already, which a stable sort makes use of.
    order = np.argsort(time_ms, kind="stable")
    equal = np.diff(time_ms[order]) == 0
    tied = np.flatnonzero(np.append(equal, False) | np.append(False, equal))
    if len(tied):  # the other keys matter only within a time stamp
        keys = table.select(SORT_KEY).take(pa.array(order[tied]))
        within = pc.sort_indices(keys, [(name, "ascending") for name in SORT_KEY])
        order[tied] = order[tied][within.to_numpy()]
        repeated = tied[_repeats_previous(keys.take(within))]
        order = np.delete(order, repeated)
    duplicates.rows += table.num_rows - len(order)
    if len(order) == table.num_rows and (np.diff(order) == 1).all():
        return table
    rows = pa.array(order)
    columns = map_columns(lambda column: column.take(rows), table.columns)
    return pa.table(columns, names=table.column_names)


def _repeats_previous(keys: pa.Table) -> npt.NDArray[np.bool_]:
    same = np.ones(keys.num_rows, dtype=bool)
    same[0] = False
    for name in SORT_KEY:
        values = keys.column(name)
        equal = pc.equal(values.slice(1), values.slice(0, keys.num_rows - 1))
        same[1:] &= equal.to_numpy()
    return same


def _spill(tables: list[pa.Table], path: Path, duplicates: DuplicateCount) -> _Run:
    table = _sorted(tables, duplicates)
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_file(path, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=BATCH_ROWS)
    time_ms = table.column("time_ms")
    return _Run(path=path, first_ms=time_ms[0].as_py(), last_ms=time_ms[-1].as_py())


def _chain(runs: list[_Run]) -> list[list[_Run]]:
    """Put runs behind one another that do not overlap: a log in time order is one chain."""
    chains: list[list[_Run]] = []
    for run in sorted(runs, key=lambda run: run.first_ms):
        earliest = min(chains, key=lambda chain: chain[-1].last_ms, default=None)
        if earliest is not None and earliest[-1].last_ms < run.first_ms:
            earliest.append(run)
        else:
            chains.append([run])
    return chains


def _read_runs(runs: list[_Run], batch_rows: int) -> Iterator[pa.Table]:
    for run in runs:
        with pa.memory_map(str(run.path)) as source:
            file = pa.ipc.open_file(source)
            for number in range(file.num_record_batches):
                batch = file.get_batch(number)
                for start in range(0, batch.num_rows, batch_rows):
                    yield pa.Table.from_batches([batch.slice(start, batch_rows)])


def _merge(runs: list[Iterator[pa.Table]]) -> Iterator[list[pa.Table]]:
    """Repeatedly yield all rows older than the newest time that every open run has reached."""
    buffers = [next(run, None) for run in runs]
    while any(buffer is not None for buffer in buffers):
        cut_ms = min(_last_time(buffer) for buffer in buffers if buffer is not None)
        ready: list[pa.Table] = []
        for index, run in enumerate(runs):
            buffer = buffers[index]
            # A run's next batch may go on with the cut's own time stamp: read past it.
            while buffer is not None and _last_time(buffer) <= cut_ms:
                following = next(run, None)
                if following is None:
                    ready.append(buffer)
                    buffer = None
                else:
                    buffer = pa.concat_tables([buffer, following])
            if buffer is not None:
                times = buffer.column("time_ms").to_numpy()
                older = int(np.searchsorted(times, cut_ms, side="right"))
                ready.append(buffer.slice(0, older))
                buffer = buffer.slice(older)
            buffers[index] = buffer
        yield ready


def _last_time(table: pa.Table) -> int:
    return int(table.column("time_ms")[-1].as_py())
