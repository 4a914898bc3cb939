from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranker.data.parquet import DataError
from ranker.evaluation.matching import key_columns, match_rows, time_column_ms

KEY = st.tuples(st.integers(0, 2) | st.none(), st.sampled_from(["a", "b"]) | st.none())


def table(keys: list[tuple[int | None, str | None]]) -> pa.Table:
    users, items = [key[0] for key in keys], [key[1] for key in keys]
    return pa.table({"user": pa.array(users, pa.int64()), "item": pa.array(items, pa.string())})


@given(wanted=st.lists(KEY, max_size=11), given_rows=st.lists(KEY, max_size=13))
def test_occurrences_are_matched_in_order(
    wanted: list[tuple[int | None, str | None]], given_rows: list[tuple[int | None, str | None]]
) -> None:
    """Against a scan with plain lists."""
    waiting: dict[tuple[int | None, str | None], list[int]] = {}
    for row, key in enumerate(given_rows):
        waiting.setdefault(key, []).append(row)
    firsts = {key: rows[0] for key, rows in waiting.items()}
    expected = []
    for key in wanted:
        rows = [] if None in key else waiting.get(key, [])
        expected.append(rows.pop(0) if rows else -1)
    surplus = sorted(
        row for key, rows in waiting.items() for row in rows if key in wanted and None not in key
    )
    match = match_rows(table(wanted), table(given_rows))
    assert match.rows.tolist() == expected
    assert match.surplus.tolist() == surplus
    assert match.surplus_first.tolist() == [firsts[given_rows[row]] for row in surplus]


def test_ids_come_in_the_logs_types() -> None:
    given_table = pa.table(
        {
            "user": pa.array([3.0, float("nan"), None, 5.0]),
            "item": pa.array(["x", "y", "x", None]).dictionary_encode(),
            "extra": [1, 2, 3, 4],
            "view": pa.array(["p", None, "q", "r"], pa.string_view()),
        }
    )
    assert key_columns(given_table, {"view": pa.string()}, "theirs").schema.types == [pa.string()]
    keys = key_columns(given_table, {"item": pa.string(), "user": pa.int64()}, "theirs")
    assert keys.to_pydict() == {"item": ["x", "y", "x", None], "user": [3, None, None, 5]}
    assert keys.schema.types == [pa.string(), pa.int64()]


@pytest.mark.parametrize(
    ("values", "expected", "message"),
    [
        (pa.array(["7"]), pa.int64(), "column 'user' is string, but the log's is int64"),
        (pa.array([7]), pa.string(), "column 'user' is int64, but the log's is string"),
        (pa.array([7.5]), pa.int64(), "must hold whole numbers: Float value 7.5"),
        (pa.array([[7]]), pa.int64(), "must hold whole numbers, got list"),
    ],
)
def test_other_types_are_named(values: pa.Array, expected: pa.DataType, message: str) -> None:
    with pytest.raises(DataError, match=r"^theirs: column 'user'") as caught:
        key_columns(pa.table({"user": values}), {"user": expected}, "theirs")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        (pa.array([1_600_000_000]), "s"),
        (pa.array([1_600_000_000.0]), "s"),
        (pa.array([1_600_000_000_000]), "ms"),
        (pa.array([1_600_000_000_000_999]), "us"),
        (pa.array(np.array(["2020-09-13T12:26:40"], "datetime64[ns]")), "s"),
        (pa.array([1_600_000_000], pa.timestamp("s", "Asia/Shanghai")), "us"),
    ],
)
def test_times_become_utc_milliseconds(values: pa.Array, unit: str) -> None:
    found = time_column_ms(pa.table({"time": values}), "time", unit, "theirs")
    assert found.to_pylist() == [1_600_000_000_000]
    assert found.type == pa.int64()
