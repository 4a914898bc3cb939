from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker.data import parquet
from ranker.data.parquet import DataError
from ranker.data.sort import Arrival, DuplicateCount, sort_by_time
from ranker.data.time_ahead import NOTHING_MS, read_time_ahead
from ranker.schema import Schema

START_MS = 1_700_000_000_000


def write(times: list[int | None], path: Path) -> Path:
    pq.write_table(pa.table({"time_ms": pa.array(times, pa.int64())}), path, row_group_size=5)
    return path


def test_the_oldest_time_to_come(
    tmp_path: Path, log_schema: Schema, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "BATCH_ROWS", 3)
    # blocks of 3, 2, 3, 1 rows; a null and an impossible time are no times
    times = [5, 9, None, 7, 8, 30, 40, 6, 50]
    ahead = read_time_ahead(
        write([None if t is None else START_MS + t for t in times], tmp_path / "log.parquet"),
        log_schema,
    )
    oldest = [ahead.after(rows) - START_MS for rows in range(9)]
    assert oldest == [5, 5, 5, 6, 6, 6, 6, 6, 50]
    assert ahead.after(9) == NOTHING_MS
    impossible = write([17, START_MS, 0], tmp_path / "other.parquet")
    assert read_time_ahead(impossible, log_schema).after(0) == START_MS
    nothing = write([None, None], tmp_path / "nothing.parquet")
    assert read_time_ahead(nothing, log_schema).after(0) == NOTHING_MS
    assert read_time_ahead(write([], tmp_path / "empty.parquet"), log_schema).after(0) == NOTHING_MS


def test_a_log_without_times_is_refused(tmp_path: Path, log_schema: Schema) -> None:
    pq.write_table(pa.table({"t": [1]}), tmp_path / "log.parquet")
    with pytest.raises(DataError, match="column 'time_ms' is missing"):
        read_time_ahead(tmp_path / "log.parquet", log_schema)


@pytest.mark.parametrize(("disorder", "spills"), [(0, False), (40, False), (1_000_000, True)])
def test_a_log_nearly_in_order_streams_through(
    disorder: int, spills: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20,000 rows in 40 arrivals; 1,500 rows may wait. Most are out before the last has come."""
    monkeypatch.setattr("ranker.data.sort.BATCH_ROWS", 300)
    rng = np.random.default_rng(7)
    times = np.argsort(np.arange(20_000) + rng.uniform(0, disorder + 1e-9, 20_000))
    parts = np.split(times, 40)
    read = 0

    def arrivals() -> Iterator[Arrival]:
        nonlocal read
        for number, part in enumerate(parts):
            read += 1
            zeros = np.zeros(len(part), dtype=np.int64)
            columns = {"time_ms": part // 3, "user": part % 3, "item": zeros, "row_hash": zeros}
            rest = np.concatenate(parts[number + 1 :]) if number < 39 else np.array([NOTHING_MS])
            yield Arrival(rows=pa.table(columns), oldest_to_come_ms=int(rest.min()) // 3)

    count = DuplicateCount()
    tables, seen_before_the_end = [], 0
    for table in sort_by_time(arrivals(), spill=tmp_path, run_rows=1_500, duplicates=count):
        tables.append(table)
        seen_before_the_end += table.num_rows if read < 40 else 0
    merged = pa.concat_tables(tables)
    whole = 3 * merged.column("time_ms").to_numpy() + merged.column("user").to_numpy()
    np.testing.assert_array_equal(whole, np.arange(20_000))
    ends = [(t.column("time_ms")[0].as_py(), t.column("time_ms")[-1].as_py()) for t in tables]
    assert all(before[1] < after[0] for before, after in pairwise(ends))
    assert any(tmp_path.iterdir()) == spills
    assert (seen_before_the_end > 17_000) == (not spills)
