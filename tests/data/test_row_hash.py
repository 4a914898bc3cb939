from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from ranker.data.row_hash import hash_rows

VALUES = st.tuples(
    st.none() | st.integers(-3, 3),
    st.none() | st.sampled_from(["", "a", "b", "ab"]),
    st.none() | st.sampled_from([-0.5, 0.25, 1.0, 1e300]),
    st.none() | st.lists(st.integers(0, 2), max_size=2),
)
TYPES = [pa.int64(), pa.string(), pa.float64(), pa.list_(pa.int64())]


def columns_of(rows: list[tuple[object, ...]]) -> dict[str, pa.Array]:
    return {f"c{k}": pa.array([row[k] for row in rows], kind) for k, kind in enumerate(TYPES)}


@settings(max_examples=60, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=11), st.integers(0, 10))
def test_rows_are_equal_iff_their_hashes_are(rows: list[tuple[object, ...]], cut: int) -> None:
    hashes = hash_rows(columns_of(rows))
    same = [[repr(a) == repr(b) for a in rows] for b in rows]
    np.testing.assert_array_equal(hashes[:, None] == hashes[None, :], same)
    # Whatever else is in the batch, and in whichever order the columns come.
    parts = [part for part in (rows[:cut], rows[cut:]) if part]
    backwards = [dict(reversed(columns_of(part).items())) for part in parts]
    np.testing.assert_array_equal(np.concatenate([hash_rows(b) for b in backwards]), hashes)


def test_a_null_does_not_turn_its_neighbours_into_other_values() -> None:
    integers = hash_rows({"x": pa.array([1, 2, 3], pa.int32())})
    with_null = hash_rows({"x": pa.array([1.0, float("nan"), 3.0])})
    assert (integers == with_null).tolist() == [True, False, True]
    assert with_null[1] == hash_rows({"x": pa.array([None], pa.int64())})[0]
    assert with_null[1] == hash_rows({"y": pa.array([None], pa.string())})[0]


def test_large_integers_stay_apart() -> None:
    hashes = hash_rows({"x": pa.array([2**53, 2**53 + 1, None])})
    assert len(set(hashes.tolist())) == 3


def test_columns_are_not_interchangeable() -> None:
    one = hash_rows({"x": pa.array([1]), "y": pa.array([2])})
    other = hash_rows({"x": pa.array([2]), "y": pa.array([1])})
    assert one[0] != other[0]


def test_hash_spreads() -> None:
    hashes = hash_rows({"x": pa.array(np.arange(100_000))})
    assert len(set(hashes.tolist())) == 100_000
    ones = [int(((hashes >> bit) & 1).sum()) for bit in range(64)]
    # Each bit is set in half of them; 6 standard deviations of a fair coin are 950.
    assert all(abs(count - 50_000) < 950 for count in ones)
