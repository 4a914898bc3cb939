from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranker.data import sort
from ranker.data.sort import Arrival, DuplicateCount, sort_by_time

ROW = st.tuples(st.integers(0, 6), st.integers(1, 3), st.sampled_from("abc"), st.integers(0, 1))


def table_of(rows: list[tuple[int, int, str, int]]) -> pa.Table:
    names = {"time_ms": pa.int64(), "user": pa.int64(), "item": pa.string(), "row_hash": pa.int64()}
    return pa.table(
        {
            name: pa.array([row[k] for row in rows], kind)
            for k, (name, kind) in enumerate(names.items())
        }
    )


def rows_of(table: pa.Table) -> list[tuple[int, int, str, int]]:
    return list(zip(*(column.to_pylist() for column in table.columns), strict=True))


def check_sort(
    rows: list[tuple[int, int, str, int]], cuts: list[int], run_rows: int, spill: Path
) -> None:
    spill.mkdir()
    arrivals = [Arrival(rows=table_of(rows[a:b])) for a, b in pairwise([0, *cuts, len(rows)])]
    duplicates = DuplicateCount()
    out = list(sort_by_time(arrivals, spill=spill, run_rows=run_rows, duplicates=duplicates))
    assert [row for table in out for row in rows_of(table)] == sorted(set(rows))
    assert duplicates.rows == len(rows) - len(set(rows))
    ends = [(t.column("time_ms")[0].as_py(), t.column("time_ms")[-1].as_py()) for t in out]
    assert all(before[1] < after[0] for before, after in pairwise(ends))  # a time is never split
    assert any(spill.iterdir()) == (len(rows) >= run_rows)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(ROW, max_size=40),
    cuts=st.lists(st.integers(0, 40), max_size=4).map(sorted),
    run_rows=st.sampled_from([1, 2, 5, 17, 1000]),
)
def test_sorted_unique_and_never_split_within_a_time(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[int, int, str, int]],
    cuts: list[int],
    run_rows: int,
) -> None:
    check_sort(rows, cuts, run_rows, tmp_path_factory.mktemp("sort") / "spill")


def test_many_overlapping_runs(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for case in range(60):
        size = int(rng.integers(20, 60))
        drawn = (
            rng.integers(9, size=size),
            rng.integers(3, size=size),
            rng.choice(list("abc"), size),
        )
        rows = [(int(t), int(u), str(i), int(t + u) % 2) for t, u, i in zip(*drawn, strict=True)]
        cuts = sorted(rng.integers(size, size=7).tolist())
        check_sort(rows, cuts, int(rng.integers(1, 13)), tmp_path / str(case))


def test_no_tables(tmp_path: Path) -> None:
    count = DuplicateCount()
    assert list(sort_by_time([], spill=tmp_path, run_rows=7, duplicates=count)) == []


def test_merging_holds_about_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """20 overlapping runs of 1,000 rows: no table of the output comes near 20,000 rows."""
    rng = np.random.default_rng(3)
    times = rng.permutation(20_000)

    def arrivals() -> Iterator[Arrival]:
        for part in np.split(times, 40):
            zeros = np.zeros(len(part), dtype=np.int64)
            columns = {"time_ms": part, "user": zeros, "item": zeros, "row_hash": zeros}
            yield Arrival(rows=pa.table(columns))

    peak = 0
    original = sort._sorted

    def watched(several: list[pa.Table], duplicates: DuplicateCount) -> pa.Table:
        nonlocal peak
        peak = max(peak, sum(table.num_rows for table in several))
        return original(several, duplicates)

    monkeypatch.setattr(sort, "_sorted", watched)
    count = DuplicateCount()
    out = list(sort_by_time(arrivals(), spill=tmp_path, run_rows=1000, duplicates=count))
    merged = np.concatenate([t.column("time_ms").to_numpy() for t in out])
    np.testing.assert_array_equal(merged, np.arange(20_000))
    assert len(list(tmp_path.iterdir())) == 20
    assert peak <= 2_000
