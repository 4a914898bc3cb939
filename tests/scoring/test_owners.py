import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranker.scoring.factorised.owners import Shared, differs, distinct_items, runs
from ranker.scoring.factorised.pieces import PIECE_ROWS, PIECE_RUNS, plan_pieces


def table(**columns: list[object]) -> pa.Table:
    return pa.table({name.replace("__", "."): values for name, values in columns.items()})


def test_runs_end_where_any_value_of_the_request_changes() -> None:
    rows = table(
        user=[7, 7, 7, 7, 9, 9, 9],
        item=[1, 2, 3, 4, 1, 2, 3],
        time_ms=[5, 5, 6, 6, 6, 6, 6],
        feature__page=["a", "a", "a", None, None, None, "b"],
    )
    found = runs(rows, ["feature.page"])
    assert found.first.tolist() == [0, 2, 3, 4, 6]
    assert found.of_row.tolist() == [0, 0, 1, 2, 3, 3, 4]
    assert runs(rows.slice(0, 0), ["feature.page"]).first.tolist() == []


def test_items_are_told_apart_by_epoch_and_by_their_own_columns() -> None:
    rows = table(item=["x", "y", "x", "x", "y"], feature__price=[1.0, 2.0, 1.0, 3.0, None])
    epoch = np.array([0, 0, 2, 0, 0])
    by_id = distinct_items(rows, epoch, [])
    assert by_id.first.tolist() == [0, 1, 2]
    assert by_id.of_row.tolist() == [0, 1, 2, 0, 1]
    found = distinct_items(rows, epoch, ["feature.price"])
    assert found.first.tolist() == [0, 1, 2, 3, 4], "rows 3 and 4 stand for themselves"
    assert found.of_row.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (pa.array([1, 2, None, None]), pa.array([1, 3, 2, None]), [False, True, True, False]),
        (pa.array(["p", None]), pa.array(["q", "q"]), [True, True]),
        (pa.array([0.5, np.nan]), pa.array([0.5, np.nan]), [False, True]),
        (
            pa.array([[1, 2], [1, 2], [], None, [5], [None, 3], None]),
            pa.array([[1, 2], [1, 4], None, None, [5, 6], [None, 3], [1]]),
            [False, True, True, False, True, False, True],
        ),
    ],
)
def test_columns_differ(a: pa.Array, b: pa.Array, expected: list[bool]) -> None:
    assert differs(a, b).tolist() == expected


@given(st.lists(st.integers(1, 3 * PIECE_ROWS), min_size=1, max_size=12), st.integers(1, 900))
def test_pieces_cover_all_rows_and_cut_lists_only_where_they_must(
    lengths: list[int], num_short: int
) -> None:
    lengths = [*lengths, *([1] * num_short), *lengths]
    first = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    requests = Shared(first=first, of_row=np.repeat(np.arange(len(lengths)), lengths))
    plan = plan_pieces(requests, 0, sum(lengths))
    assert [piece.start for piece in plan] == [0, *(piece.stop for piece in plan[:-1])]
    assert plan[-1].stop == sum(lengths)
    begins = {*first.tolist(), sum(lengths)}
    for piece in plan:
        assert 0 < piece.stop - piece.start <= PIECE_ROWS
        assert requests.of_row[piece.stop - 1] - requests.of_row[piece.start] < PIECE_RUNS
        inside = [start for start in begins if piece.start < start <= piece.stop]
        assert piece.stop in begins or not inside
