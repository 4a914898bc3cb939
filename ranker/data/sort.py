"""A log in any order becomes a stream in time order, without exact duplicates, in bounded memory.

Real logs arrive unsorted. Runs that fit in memory are sorted and spilled; the runs are merged.
Rows are ordered by (time, user, item, content), so the result does not depend on the files' order,
and rows with equal time stamps are never split between two tables of the output.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SORT_KEY = [(name, "ascending") for name in ("time_ms", "user", "item", "row_hash")]
BATCH_ROWS = 65_536


@dataclass(slots=True)
class DuplicateCount:
    """How many exact duplicate rows were dropped."""

    rows: int = 0


def sort_by_time(
    tables: Iterable[pa.Table], *, spill: Path, run_rows: int, duplicates: DuplicateCount
) -> Iterator[pa.Table]:
    """Yield all rows in time order; exact duplicates (same time, user, item, hash) are dropped.

    Args:
        tables: canonical log tables, in any order.
        spill: an existing folder for sorted runs; used only when rows exceed ``run_rows``.
        run_rows: how many rows are sorted in memory at a time.
        duplicates: receives the count of dropped rows.
    """
    runs: list[Path] = []
    buffered: list[pa.Table] = []
    num_buffered = 0
    for table in tables:
        buffered.append(table)
        num_buffered += table.num_rows
        if num_buffered >= run_rows:
            runs.append(_spill(buffered, spill / f"run-{len(runs):05d}.parquet"))
            buffered, num_buffered = [], 0
    if not runs:
        merged: Iterable[pa.Table] = [_sorted(buffered)] if buffered else []
    else:
        if buffered:
            runs.append(_spill(buffered, spill / f"run-{len(runs):05d}.parquet"))
        # However many runs there are, their open batches together stay about one run's size.
        batch_rows = min(BATCH_ROWS, max(1, run_rows // len(runs)))
        merged = _merge([_read_run(run, batch_rows) for run in runs])
    for table in merged:
        unique = _without_duplicates(table)
        duplicates.rows += table.num_rows - unique.num_rows
        if unique.num_rows:
            yield unique


def _sorted(tables: list[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables).sort_by(SORT_KEY).combine_chunks()


def _spill(tables: list[pa.Table], path: Path) -> Path:
    pq.write_table(
        _sorted(tables),
        path,
        row_group_size=BATCH_ROWS,
        compression="zstd",
        write_page_checksum=True,
    )
    return path


def _read_run(path: Path, batch_rows: int) -> Iterator[pa.Table]:
    run = pq.ParquetFile(path, page_checksum_verification=True)
    for batch in run.iter_batches(batch_size=batch_rows):
        yield pa.Table.from_batches([batch])


def _merge(runs: list[Iterator[pa.Table]]) -> Iterator[pa.Table]:
    """Repeatedly emit all rows older than the newest time that every open run has reached."""
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
        yield _sorted(ready)


def _last_time(table: pa.Table) -> int:
    return int(table.column("time_ms")[-1].as_py())


def _without_duplicates(table: pa.Table) -> pa.Table:
    same = np.zeros(table.num_rows, dtype=bool)
    if table.num_rows > 1:
        same[1:] = True
        for name, _ in SORT_KEY:
            values = table.column(name).to_numpy()
            same[1:] &= values[1:] == values[:-1]
    return table.filter(pa.array(~same))
